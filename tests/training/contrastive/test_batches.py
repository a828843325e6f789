"""Batches as numbers, batches of one task, and mined negatives."""

from __future__ import annotations

import numpy as np
import pytest

from edgeleaf.errors import TrainingError
from edgeleaf.recipe.teach import MiningSpec
from edgeleaf.texts.taught import PairSet
from edgeleaf.training.contrastive.batch import Batch
from edgeleaf.training.contrastive.batches import TaskBatchSampler
from edgeleaf.training.contrastive.mining import chosen, mined


def pair_set(**changes: object) -> PairSet:
    """Return three queries; the first has two positives, documents 0 and 3."""
    given = {
        "queries": ["a", "b", "c"],
        "documents": [f"d{i}" for i in range(12)],
        "rows": [(0, 0), (0, 3), (1, 1), (2, 2)],
        "known": [[0, 3], [1], [2]],
        "negatives": [[5, 6], [6, 0, 7], []],
        "tasks": [0, 0, 1, 1],
        "task_names": ["x", "y"],
        "instructions": [None, None],
        "examples": [[], []],
    }
    return PairSet(**{**given, **changes})  # type: ignore[arg-type]


def test_a_batch_has_each_document_once_and_its_places() -> None:
    batch = Batch.of(pair_set(), [0, 2, 3], negatives=2)
    assert batch.queries == [0, 1, 2]
    assert batch.documents == [0, 1, 2, 5, 6]
    assert batch.positive.tolist() == [0, 1, 2]
    assert batch.negatives.tolist() == [[3, 4], [4, 0], [-1, -1]]
    assert bool(batch.allowed.all())


def test_another_positive_of_a_query_is_no_negative_of_it() -> None:
    batch = Batch.of(pair_set(), [0, 1, 2], negatives=0)
    assert batch.documents == [0, 3, 1]
    assert batch.negatives.shape == (3, 0)
    assert batch.allowed.tolist() == [[True, False, True], [False, True, True], [True, True, True]]


def test_batches_of_one_task_have_every_row_once() -> None:
    tasks = [0] * 21 + [1] * 9 + [2] * 5
    sampler = TaskBatchSampler(range(35), tasks, shared=0.0, batch_size=4, seed=3)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(35))
    assert all(len({tasks[row] for row in batch}) == 1 for batch in batches)
    assert len(batches) == len(sampler)
    assert min(map(len, batches)) > 1  # 21, 9 and 5 rows leave a rest of one, which joins another batch
    assert batches == list(sampler)
    sampler.set_epoch(1)
    assert batches != list(sampler)
    assert len(list(sampler)) == len(sampler)


def test_a_share_of_each_task_is_mixed() -> None:
    tasks = [0] * 40 + [1] * 40
    batches = list(TaskBatchSampler(range(80), tasks, shared=0.25, batch_size=4, seed=0))
    assert sorted(row for batch in batches for row in batch) == list(range(80))
    mixed = [batch for batch in batches if len({tasks[row] for row in batch}) == 2]
    assert 3 <= len(mixed) <= 5  # 20 rows in 5 batches
    assert all(len({tasks[row] for row in batch}) == 2 for batch in mixed)


def vectors(degrees: list[float]) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_negatives_come_from_the_ranks_and_known_positives_do_not() -> None:
    documents = vectors([0, 50, 60, 1, 5, 10, 15, 20, 25, 30, 35, 40])
    queries = vectors([0, 50, 60])
    found = mined(pair_set(), queries, documents, MiningSpec(count=7, ranks=(2, 4)), seed=0)
    # The first query's others, nearest first: 5 and 6 (5 and 10 degrees), so ranks 2 to 4 are rows 5, 6, 7.
    assert found.negatives[0] == [5, 6, 7]
    for query, negatives in enumerate(found.negatives):
        assert not set(negatives) & set(found.known[query])
    few = mined(pair_set(), queries, documents, MiningSpec(count=2, ranks=(1, 8)), seed=0)
    assert [len(part) for part in few.negatives] == [2, 2, 2]
    assert few.negatives == mined(pair_set(), queries, documents, MiningSpec(count=2, ranks=(1, 8)), seed=0).negatives
    others = [mined(pair_set(), queries, documents, MiningSpec(count=2, ranks=(1, 8)), seed=i) for i in range(1, 4)]
    assert any(other.negatives != few.negatives for other in others)


def test_the_margin_keeps_negatives_at_most_so_close() -> None:
    scores = np.array([0.8, 0.77, 0.7601, 0.76, 0.5, -np.inf])
    found = chosen(scores, 0.8, MiningSpec(count=9, ranks=(1, 9), margin=0.95), seed=0)
    assert found == [3, 4]  # 0.95 * 0.8 = 0.76
    assert chosen(scores, 0.8, MiningSpec(count=9, ranks=(1, 9)), seed=0) == [0, 1, 2, 3, 4]


def test_the_filter_leaves_out_pairs_whose_positive_ranks_low() -> None:
    documents = vectors([0, 90, 60, 1, 5, 10, 15, 20, 25, 30, 35, 40])
    queries = vectors([0, 0, 60])  # document 1 is the last that the second query finds
    found = mined(pair_set(), queries, documents, MiningSpec(count=1, ranks=(1, 5), filter_rank=3), seed=0)
    assert found.rows == [(0, 0), (0, 3), (2, 2)]
    assert found.tasks == [0, 0, 1]
    with pytest.raises(TrainingError, match="no pair's positive is within rank 1"):
        mined(pair_set(), vectors([180, 0, 180]), documents, MiningSpec(count=1, ranks=(1, 5), filter_rank=1), seed=0)


def test_ranks_beyond_the_documents_are_one_line() -> None:
    with pytest.raises(TrainingError, match="no negative within ranks 50 to 100 of 12 documents"):
        mined(pair_set(), vectors([0, 50, 60]), vectors([*range(12)]), MiningSpec(), seed=0)
