"""Templates and examples: byte for byte, never the query's own, and the window counts the text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeleaf.errors import TrainingError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.training.contrastive.instructions import QueryTexts, check_room, rendered, with_examples
from tests.training.contrastive.test_batches import pair_set


@pytest.fixture(scope="module")
def tokenizer(tiny_student: Path) -> Any:
    import tokenizers

    plain = tokenizers.Tokenizer.from_str(load_sentence_transformer(tiny_student).tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Instruct: {instruction}\nQuery: {query}", "Instruct: Find it.\nQuery: {instruction} {0}"),
        ("Instruct: {instruction} \n Query: {query}", "Instruct: Find it. \n Query: {instruction} {0}"),
        ("query: {query}", "query: {instruction} {0}"),
    ],
)
def test_braces_in_a_query_have_no_meaning(template: str, expected: str) -> None:
    assert rendered(template, "{instruction} {0}", "Find it.") == expected


def test_examples_stand_as_in_bge_en_icl() -> None:
    text = with_examples("why?", "Answer.", [("who?", "They."), ("when?", "Then.")])
    assert text == (
        "<instruct>Answer.\n<query>who?\n<response>They.\n\n"
        "<instruct>Answer.\n<query>when?\n<response>Then.\n\n"
        "<instruct>Answer.\n<query>why?\n<response>"
    )


def test_the_template_of_a_task_with_an_instruction_is_lg_annas() -> None:
    pairs = pair_set(instructions=["Find it.", None])
    texts = QueryTexts(pairs, template=None, most=0, seed=0)
    assert texts.plain(0) == "Instruct: Find it.\nQuery: a"
    assert texts.plain(2) == "b"


def test_drawn_examples_are_of_the_task_and_never_the_querys_own() -> None:
    queries = [f"query {i}" for i in range(9)]
    documents = [f"text {i}" for i in range(8)] + ["query 8"]  # the last answers itself
    pairs = pair_set(
        queries=queries,
        documents=documents,
        rows=[(i, i) for i in range(9)],
        known=[[i] for i in range(9)],
        negatives=[[] for _ in range(9)],
        tasks=[0] * 5 + [1] * 4,
        instructions=["One.", "Two."],
    )
    counts = set()
    for seed in range(30):
        texts = QueryTexts(pairs, template=None, most=2, seed=seed)
        for row in range(9):
            found = texts.examples(row)
            assert found == texts.examples(row)
            counts.add(len(found))
            rows = range(5) if row < 5 else range(5, 9)
            assert {asked for asked, _ in found} <= {queries[i] for i in rows} - {queries[row], "query 8"}
            assert all(asked.removeprefix("query") == answer.removeprefix("text") for asked, answer in found)
            assert len(set(found)) == len(found)
    assert counts == {0, 1, 2}


def test_examples_of_the_recipe_take_the_place_of_drawn_ones() -> None:
    pairs = pair_set(instructions=["One.", "Two."], examples=[[("who?", "They.")], []])
    texts = QueryTexts(pairs, template=None, most=1, seed=0)
    found = [tuple(QueryTexts(pairs, template=None, most=1, seed=seed).examples(0)) for seed in range(20)]
    assert set(found) == {(), (("who?", "They."),)}
    assert texts.plain(0) == "Instruct: One.\nQuery: a"


def test_the_window_counts_the_text_alone_and_examples_that_do_not_fit_are_left_out(tokenizer: Any) -> None:
    long = " ".join(["parcel", "river", "stone"] * 20)
    pairs = pair_set(queries=[long, "b", "c"], instructions=["find"] * 2, examples=[[("where", "city " * 9)] * 3] * 2)
    seed = next(s for s in range(50) if len(QueryTexts(pairs, template=None, most=3, seed=s).examples(0)) == 3)
    texts = QueryTexts(pairs, template=None, most=3, seed=seed)
    whole = texts.text(0, tokenizer, window=12, positions=500)
    assert whole.count("<response>") == 4
    query = whole.rpartition("<query>")[2].removesuffix("\n<response>")
    assert len(tokenizer.encode(query).ids) == 12  # special tokens included
    assert long.startswith(query)
    room = len(tokenizer.encode(whole).ids) - 1
    shorter = texts.text(0, tokenizer, window=12, positions=room)
    assert shorter.count("<response>") == 3
    assert shorter.endswith(f"<query>{query}\n<response>")
    assert len(tokenizer.encode(shorter).ids) <= room


def test_a_model_without_positions_for_examples_is_one_line() -> None:
    check_room(64, 512)
    with pytest.raises(TrainingError, match=r"positions for 64 tokens, and max_length is 64.*lower teach\.max_length"):
        check_room(64, 64)
