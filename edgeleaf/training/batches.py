"""Batches of texts of similar length, which saves padding; the same seed and epoch give the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers.base.sampler import DefaultBatchSampler

POOL = 50
"""Number of batches that are sorted by length together: enough to save padding, few enough to keep batches mixed."""


class LengthBatchSampler(DefaultBatchSampler):  # type: ignore[misc]
    """Shuffle, cut into pools of ``POOL`` batches, sort each pool by length, shuffle the batches of the whole epoch.

    Args:
        dataset: the trainer's dataset.
        lengths: length of each text, in any unit.
        batch_size, drop_last, seed: as sentence-transformers passes them; the batch of all processes together.
        processes: how many train together. Each batch is then handed out in as many parts, one after the other, which
            accelerate gives to one process each; so the batches do not depend on their number. A last batch with
            fewer texts than processes is left out.
    """

    def __init__(
        self,
        dataset: Any,
        lengths: Sequence[int] | npt.NDArray[Any],
        *,
        batch_size: int,
        drop_last: bool,
        seed: int,
        processes: int = 1,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, seed=seed)
        self._lengths = np.asarray(lengths)
        self._size = batch_size
        self._processes = processes
        if processes > 1:
            self.batch_size = None  # parts of a last batch are shorter, and accelerate would drop them
            self.sampler = self  # accelerate tells an epoch's number to a batch sampler's sampler only

    def __len__(self) -> int:
        whole, rest = divmod(len(self._lengths), self._size)
        return self._processes * (whole if self.drop_last or rest < self._processes else whole + 1)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self._lengths))
        pool = POOL * self._size
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches += [rows[i : i + self._size] for i in range(0, len(rows), self._size)]
        least = self._size if self.drop_last else self._processes
        batches = [batch for batch in batches if len(batch) >= least]
        for i in random.permutation(len(batches)):
            for part in np.array_split(batches[i], self._processes):
                yield part.tolist()
