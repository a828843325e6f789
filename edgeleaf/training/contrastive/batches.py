"""Batches of pairs: of one task each, or of all; the same seed and epoch give the same batches.

Task-homogeneous batches: in-batch negatives are then of the query's own kind, which is harder than telling kinds apart.
"Semi-homogeneous": a share of each task's pairs is mixed into batches of all tasks. Source: KaLM-Embedding-V2's public
code, where the share is 0 by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers.base.sampler import DefaultBatchSampler


class TaskBatchSampler(DefaultBatchSampler):  # type: ignore[misc]
    """Shuffles the rows of each task, cuts them into batches, and shuffles the batches of the whole epoch.

    A batch of a single row teaches nothing by contrast, so a rest of one is joined to the batch before it.

    Args:
        dataset: the trainer's dataset.
        tasks: task of each row; all 0 for batches of all tasks.
        shared: share of each task's rows that is mixed into batches of all tasks.
        batch_size, seed: as sentence-transformers passes them.
    """

    def __init__(self, dataset: Any, tasks: Sequence[int], *, shared: float, batch_size: int, seed: int) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=False, seed=seed)
        self._tasks, self._shared = np.asarray(tasks), shared

    def __len__(self) -> int:
        return len(self._batches(0))

    def __iter__(self) -> Iterator[list[int]]:
        yield from (batch.tolist() for batch in self._batches(self.epoch))

    def _batches(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        chance = np.random.default_rng((self.seed, epoch))
        groups, mixed = [], []
        for task in np.unique(self._tasks):
            rows = chance.permutation(np.flatnonzero(self._tasks == task))
            apart = round(self._shared * len(rows))
            mixed.append(rows[:apart])
            groups.append(rows[apart:])
        groups.append(chance.permutation(np.concatenate(mixed)))
        batches = [batch for rows in groups for batch in self._cut(rows)]
        return [batches[i] for i in chance.permutation(len(batches))]

    def _cut(self, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        found = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        if len(found) > 1 and len(found[-1]) == 1:
            found[-2:] = [np.concatenate(found[-2:])]
        return found
