"""Soft labels: what is scored, and texts in any language or without words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeleaf.errors import ModelError
from edgeleaf.texts.taught import PairSet
from edgeleaf.training.contrastive.labels import label_scores

pytest.importorskip("bm25s")


def pair_set(queries: list[str], documents: list[str], negatives: list[list[int]] | None = None) -> PairSet:
    count = len(queries)
    return PairSet(
        queries=queries,
        documents=documents,
        rows=[(i, i) for i in range(count)],
        known=[[i] for i in range(count)],
        negatives=negatives or [[] for _ in queries],
        tasks=[0] * count,
        task_names=["x"],
        instructions=[None],
        examples=[[]],
    )


def scored(pairs: PairSet, *, most: int = 2, reranker: Any = None) -> tuple[PairSet, np.ndarray]:
    chance = np.random.default_rng(0)
    queries, documents = (chance.normal(size=(len(part), 4)) for part in (pairs.queries, pairs.documents))
    return label_scores(pairs, queries, documents, most=most, reranker=reranker)


def test_shared_words_raise_a_label() -> None:
    pairs = pair_set(["Flügel heben"], ["Flügel heben das Flugzeug", "ein Fluss", "heben", "eine Stadt"], [[1, 2, 3]])
    one = np.ones((4, 1))
    found, scores = label_scores(pairs, one[:1], one, most=3)  # the other ranking holds all equal: in order
    assert found.negatives == [[1, 2, 3]]
    expected = [(1 / 61 + 1 / 61), 1 / 62, (1 / 62 + 1 / 63), 1 / 64]
    assert scores[0].tolist() == pytest.approx([value * 61 / 2 for value in expected])


def test_without_negatives_the_highest_fused_are_taken_and_no_positives() -> None:
    found, scores = scored(pair_set(["a b", "c d"], ["a b", "c d", "a b c", "x", "y"]))
    for query, negatives in enumerate(found.negatives):
        assert len(negatives) == 2 and query not in negatives
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("queries", "documents"),
    [
        (["zzz", "yyy", "x y"], ["alpha beta", "gamma", "delta"]),
        (["中", "文", "字"], ["一", "二", "三"]),
        (["a", "b", "c"], ["?", "!", "."]),
        (["?", "!", "."], ["the", "of", "and"]),
        (["😀", "\u200b", "e\u0301"], ["😀 😀", "\u200b", "é"]),
    ],
)
def test_texts_that_share_no_word_or_have_none(queries: list[str], documents: list[str]) -> None:
    found, scores = scored(pair_set(queries, documents))
    assert [len(part) for part in found.negatives] == [2, 2, 2]
    assert np.isfinite(scores).all() and scores.min() > 0 and scores.max() <= 1


class Reranker:
    def __init__(self, given: Any) -> None:
        self.given = given

    def predict(self, pairs: list[tuple[str, str]], **_: Any) -> Any:
        return self.given(pairs)


def test_a_rerankers_scores_are_the_labels() -> None:
    pairs = pair_set(["a", "b"], ["a", "b", "ccc", "dddd"], [[2], [3, 2]])
    found, scores = scored(pairs, reranker=Reranker(lambda asked: [len(text) / 10 for _, text in asked]))
    assert found.negatives == [[2], [3, 2]]
    np.testing.assert_allclose(scores, [[0.1, 0.3, np.nan], [0.1, 0.4, 0.3]], atol=1e-6)


@pytest.mark.parametrize("given", [lambda asked: [[0.1, 0.9]] * len(asked), lambda asked: [float("nan")] * len(asked)])
def test_a_reranker_without_one_number_a_pair_is_one_line(given: Any) -> None:
    with pytest.raises(ModelError, match="one finite number each is needed: give a cross-encoder with one output"):
        scored(pair_set(["a", "b"], ["a", "b", "c"]), reranker=Reranker(given))
