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
        batch_size, drop_last, seed: as sentence-transformers passes them.
    """

    def __init__(
        self, dataset: Any, lengths: Sequence[int] | npt.NDArray[Any], *, batch_size: int, drop_last: bool, seed: int
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, seed=seed)
        self._lengths = np.asarray(lengths)

    def __len__(self) -> int:
        count = len(self._lengths)
        whole, rest = divmod(count, self.batch_size)
        return int(whole) if self.drop_last or not rest else int(whole) + 1

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self._lengths))
        pool = POOL * self.batch_size
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        for i in random.permutation(len(batches)):
            yield batches[i].tolist()
