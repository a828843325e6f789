"""What opens every row of units: the template's prefix and the prompt, whose whole words are tokenised at export."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgeleaf.errors import ExportError, TokenizerNotSupported
from edgeleaf.graph.tokenizers.spec import AddedToken, TokenizerSpec
from edgeleaf.graph.tokenizers.units import BEFORE, IN_TEXT, JOINED, ROW, Units


@dataclass(frozen=True)
class Opening:
    """A prompt in two parts.

    Attributes:
        head_ids: tokens of the part that text behind it does not change.
        tail: the rest, which runs through the graph with the text.
    """

    head_ids: tuple[int, ...]
    tail: str


def read_patterns(spec: TokenizerSpec) -> dict[str, AddedToken]:
    """Return how the added tokens of the normalised text are written there.

    Raises:
        TokenizerNotSupported: naming a token that `tokenizers` itself does not find reliably.
    """
    normalizer = spec.tokenizer.normalizer
    patterns: dict[str, AddedToken] = {}
    for token in spec.normalized:
        content = normalizer.normalize_str(token.content) if normalizer else token.content
        if not content:
            raise TokenizerNotSupported(
                f"added token {token.content!r} is nothing once it is normalised: not supported with normalized: true; "
                "supported: normalized: false"
            )
        if content in patterns:  # tokenizers 0.22 finds the first of them, 0.23 any one
            raise TokenizerNotSupported(
                f"added tokens {patterns[content].content!r} and {token.content!r} are the same once they are "
                "normalised: not supported with normalized: true; supported: normalized: false, or only one of them"
            )
        patterns[content] = token
    for group in (spec.raw, spec.normalized):
        taking = next((token for token in group if token.rstrip), None)
        taken = next((token for token in group if token.content[0].isspace()), None)
        if taking and taken:
            raise TokenizerNotSupported(
                f"added token {taken.content!r} begins with white space, which the added token {taking.content!r} with "
                "rstrip may take in; supported: rstrip: false"
            )
    return patterns


def split_prompt(
    prompt: str, spec: TokenizerSpec, max_length: int, *, cuts: Callable[[str], bool] = lambda before: True
) -> Opening:
    """Cut the prompt before its last spaces, if nothing goes across: ids of what lies before, and the rest.

    Args:
        prompt: put before every text.
        spec: the tokenizer.
        max_length: tokens of a row.
        cuts: whether the model never joins this text with a space behind it.

    Raises:
        TokenizerNotSupported: what text comes behind the prompt decides whether it holds an added token.
        ExportError: the prompt leaves no room for text.
    """
    for token in spec.raw:
        for length in range(1, len(token.content) + token.single_word):
            if prompt.endswith(token.content[:length]):
                raise TokenizerNotSupported(
                    f"the prompt ends in {token.content[:length]!r}, with which the added token {token.content!r} "
                    "begins; supported: a prompt whose added tokens don't depend on the text behind it"
                )
    at = len(prompt.rstrip(" "))
    head = prompt[:at]
    if (
        at in (0, len(prompt))
        or head[-1].isspace()
        or any(token.content in prompt for token in spec.added)
        or any(" " in token.content and (token.single_word or token.content.strip()) for token in spec.added)
        or not cuts(head)
    ):
        head = ""
    ids: list[int] = spec.tokenizer.encode(prompt, add_special_tokens=False).ids
    taken = len(spec.prefix.ids) + len(ids) + len(spec.suffix.ids)
    if taken >= max_length and not spec.truncates_left:
        raise ExportError(f"the prompt takes {len(ids)} of max_length {max_length} tokens; pass a larger max_length")
    head_ids = spec.tokenizer.encode(head, add_special_tokens=False).ids if head else []
    return Opening(tuple(head_ids), prompt[len(head) :])


def needed(spec: TokenizerSpec, opening: Opening) -> Iterator[tuple[int, str]]:
    """The tokens that a line can hold, with the way in which they stand there."""
    yield from ((token.id, IN_TEXT) for token in spec.added)
    yield from ((token_id, BEFORE) for token_id in (*spec.prefix.ids, *opening.head_ids))
    yield from ((token_id, JOINED) for token_id in opening.head_ids[-1:])


def of_units(units: Units, spec: TokenizerSpec, opening: Opening) -> list[int]:
    """The units that open every row."""
    line = [ROW, *(units.of_token(token_id, BEFORE) for token_id in (*spec.prefix.ids, *opening.head_ids))]
    if opening.head_ids:
        line[-1] = units.of_token(opening.head_ids[-1], JOINED)
    if any(token.single_word for token in spec.raw):
        return [*line, *units.of_text(opening.tail)]  # the graph itself looks for tokens in it
    raw = {token.content: token for token in spec.raw}
    literals = "|".join(map(re.escape, raw)) or "(?!)"
    at = 0
    for match in re.finditer(literals, opening.tail):
        line += [*units.of_text(opening.tail[at : match.start()]), units.of_token(raw[match[0]].id)]
        at = match.end()
    return [*line, *units.of_text(opening.tail[at:])]


__all__ = ["Opening", "needed", "of_units", "read_patterns", "split_prompt"]
