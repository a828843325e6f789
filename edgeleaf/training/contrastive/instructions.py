"""Structured instructions and in-context examples before queries; documents stay bare.

    plain     Instruct: {task}\\nQuery: {query}
    examples  <instruct>{task}\\n<query>{q}\\n<response>{r}, one a block, blank lines between, then
              <instruct>{task}\\n<query>{query}\\n<response>

Source of the first: LG-ANNA-Embedding, arXiv 2506.07438, as reviews give it (secondary); another template may take its
place. The second is that of BGE-en-ICL, whose public code has it; examples hurt in LG-ANNA's own table (2 examples
73.12, none 74.14; secondary), so their number is 0 by default. In training each query has 0 to k of them, which is
presumed, so that the model also answers without any. The window counts the text alone: it is cut before examples go in
front, and examples that do not fit into the model's positions are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeleaf.errors import TrainingError
from edgeleaf.recipe.teach import INSTRUCTION, QUERY, TEMPLATE
from edgeleaf.texts.taught import PairSet
from edgeleaf.texts.text import same

MOST_EXAMPLE_CHARS = 400
"""Longer queries and responses of examples are cut to this, at a space."""
DRAWS = 8
"""Attempts to find an example that is not the query's own."""


def rendered(template: str, query: str, instruction: str | None) -> str:
    """Return a query in its template; braces in the texts themselves have no meaning.

    Example:
        >>> rendered("Instruct: {instruction}\\\\nQuery: {query}", "why?", "Answer.")
        'Instruct: Answer.\\\\nQuery: why?'
    """
    values = {QUERY: query, INSTRUCTION: instruction or ""}
    return re.sub(r"\{query\}|\{instruction\}", lambda match: values[match[0]], template)


def with_examples(query: str, instruction: str, examples: Sequence[tuple[str, str]]) -> str:
    """Return a query after examples of its task, as BGE-en-ICL writes them."""
    blocks = [f"<instruct>{instruction}\n<query>{asked}\n<response>{answer}" for asked, answer in examples]
    return "\n\n".join([*blocks, f"<instruct>{instruction}\n<query>{query}\n<response>"])


class QueryTexts:
    """The texts of a stage's queries, as the model reads them.

    Args:
        pairs: the pairs.
        template: the stage's template; None means none, or :data:`TEMPLATE` for a task with an instruction.
        most: greatest number of examples.
        seed: seed of how many and which.
    """

    def __init__(self, pairs: PairSet, *, template: str | None, most: int, seed: int) -> None:
        self._pairs, self._template, self._most, self._seed = pairs, template, most, seed
        self._of_task: dict[int, list[int]] = {}
        for row, task in enumerate(pairs.tasks):
            self._of_task.setdefault(task, []).append(row)

    def plain(self, row: int) -> str:
        """Return the query of a row in its template."""
        query = self._pairs.queries[self._pairs.rows[row][0]]
        template = self.template(self._pairs.tasks[row])
        return (
            query if template is None else rendered(template, query, self._pairs.instructions[self._pairs.tasks[row]])
        )

    def template(self, task: int) -> str | None:
        """Return the template of a task's queries, None for the bare query."""
        return self._template or (TEMPLATE if self._pairs.instructions[task] is not None else None)

    def examples(self, row: int) -> list[tuple[str, str]]:
        """Return 0 to ``most`` examples of a row's task, none of them its own; the same row always gets the same."""
        chance = np.random.default_rng((self._seed, row))
        count = int(chance.integers(0, self._most + 1))
        task = self._pairs.tasks[row]
        given = self._pairs.examples[task]
        if given:
            places = chance.permutation(len(given))[:count]
            return [(_cut(given[i][0]), _cut(given[i][1])) for i in places]
        query, known = self._pairs.rows[row][0], set(self._pairs.known[self._pairs.rows[row][0]])
        found: list[int] = []
        for _ in range(DRAWS * count):
            other = self._of_task[task][int(chance.integers(len(self._of_task[task])))]
            if len(found) < count and other not in found and self._differs(other, query, known):
                found.append(other)
        texts = [
            (self._pairs.queries[self._pairs.rows[i][0]], self._pairs.documents[self._pairs.rows[i][1]]) for i in found
        ]
        return [(_cut(asked), _cut(answer)) for asked, answer in texts]

    def _differs(self, row: int, query: int, known: set[int]) -> bool:
        asked, answer = self._pairs.rows[row]
        own = same(self._pairs.queries[asked]) == same(self._pairs.documents[answer])
        return asked != query and answer not in known and not own

    def text(self, row: int, tokenizer: Any, *, window: int, positions: int) -> str:
        """Return a row's query with its examples.

        Args:
            row: the row.
            tokenizer: a ``tokenizers.Tokenizer`` that neither cuts nor pads.
            window: tokens that the query itself may have, special tokens included.
            positions: tokens that the model can read.

        Raises:
            TrainingError: the query alone does not fit into the model's positions.
        """
        examples = self.examples(row) if self._most else []
        if not examples:
            return self.plain(row)
        query = self._pairs.queries[self._pairs.rows[row][0]]
        instruction = self._pairs.instructions[self._pairs.tasks[row]] or ""
        whole = tokenizer.encode(query)
        extra = sum(whole.special_tokens_mask)
        if len(whole.ids) > window:
            ends = [
                end for (_, end), special in zip(whole.offsets, whole.special_tokens_mask, strict=True) if not special
            ]
            query = query[: ends[max(0, window - extra - 1)]]
        while True:
            text = with_examples(query, instruction, examples) if examples else self.plain(row)
            if len(tokenizer.encode(text).ids) <= positions or not examples:
                return text
            examples = examples[1:]


def check_room(window: int, positions: int) -> None:
    """Raise TrainingError if a model has no positions beyond the window, so that examples would not fit."""
    if positions <= window:
        raise TrainingError(
            f"the model has positions for {positions} tokens, and max_length is {window}, so examples do not fit: "
            "lower teach.max_length, or leave examples out"
        )


def _cut(text: str) -> str:
    if len(text) <= MOST_EXAMPLE_CHARS:
        return text
    kept = text[: MOST_EXAMPLE_CHARS + 1].rsplit(maxsplit=1)
    return (kept[0] if len(kept) > 1 else text)[:MOST_EXAMPLE_CHARS]
