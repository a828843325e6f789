"""edgeleaf.certify.retrieval: figures that can be worked out by hand, and intervals that are those of a bootstrap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgeleaf.certify import retrieval
from edgeleaf.certify.retrieval import estimate, ndcg_at_10, per_query, require_measures
from edgeleaf.errors import MissingExtra
from edgeleaf.texts.collection import Collection

DOCUMENTS = tuple(f"d{n}" for n in range(12))


def collection(**qrels: dict[str, int]) -> Collection:
    return Collection("c", tuple(qrels), tuple(qrels), DOCUMENTS, DOCUMENTS, qrels)


def test_gains_by_hand() -> None:
    judged = collection(first={"d0": 1}, third={"d7": 2}, never={"d11": 1}, gone={"d0": 1, "nowhere": 1})
    ranking = np.array([[*range(10)], [3, 4, 7, *range(5, 7), 8, 9, 10, 11, 0], [*range(10)], [*range(10)]])
    values = per_query(judged, ranking)
    ideal_of_two = 1 + 1 / math.log2(3)
    assert values["nDCG@10"] == pytest.approx([1, 1 / math.log2(4), 0, 1 / ideal_of_two])
    assert values["RR@10"] == pytest.approx([1, 1 / 3, 0, 1])
    found = retrieval.retrieval(judged, ranking)
    assert found.ndcg_at_10.mean == ndcg_at_10(judged, ranking) == round(values["nDCG@10"].mean(), 6)
    assert found.mrr_at_10.mean == round(values["RR@10"].mean(), 6)


def test_what_stands_after_the_tenth_place_does_not_count() -> None:
    assert per_query(collection(q={"d10": 1}), np.array([[*range(12)]]))["RR@10"].tolist() == [0]


def test_the_interval_is_that_of_the_mean_and_the_same_every_time() -> None:
    values = np.random.default_rng(5).normal(0.5, 0.2, size=400)
    found = estimate(values)
    error = values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=error / 5)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=error / 5)
    assert estimate(values) == found != estimate(values, seed=1)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        return None

    monkeypatch.setattr(retrieval.importlib.util, "find_spec", nothing)
    with pytest.raises(MissingExtra, match=r"ir-measures not installed.*pip install 'edgeleaf\[distill\]'"):
        require_measures()
