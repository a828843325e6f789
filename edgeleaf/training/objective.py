"""LEAF's objective: the squared L2 distance between the student's and the teacher's unit vectors (arXiv 2509.12539).

An objective is a torch module as sentence-transformers' trainer calls it: ``forward(features, rows)``. The labels are
row numbers; the teacher's vectors stay memory-mapped here and never go through the data loader.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeleaf.distributed.team import team
from edgeleaf.training.guards import LossWatch


class LeafLoss(torch.nn.Module):  # type: ignore[misc]
    """Mean over a batch of ‖student(text) - teacher(text)‖², both of unit norm; 2 - 2 cos.

    Args:
        model: the student.
        vectors: [n, dim], the teacher's vectors of all training texts, in any float type, memory-mapped or not.

    Raises:
        TrainingError: from ``forward``, if the loss is not finite or keeps growing.
    """

    def __init__(self, model: torch.nn.Module, vectors: npt.NDArray[np.floating[Any]]) -> None:
        super().__init__()
        self.model = model
        self.vectors = vectors
        self._watch = LossWatch()
        self._team = team()

    def forward(self, features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of one batch: ``features`` of one text column, ``labels`` int64 [batch], row numbers.

        With several processes the mean of their losses is that of the whole batch.
        """
        (text,) = features
        student = self.model(text)["sentence_embedding"].float()
        rows = self.vectors[labels.cpu().numpy()].astype(np.float32)
        teacher = torch.from_numpy(rows).to(student.device)
        squares = (student - teacher).square().sum(dim=1)
        if self._team.size == 1:
            loss = squares.mean()
            self._watch.see(float(loss.detach()))
            return loss
        # The parts of a batch may differ by one text. Gradients are averaged over processes, so this sum, divided by
        # the texts of all and multiplied by the processes, gives the gradient of the mean over the whole batch.
        total, texts = self._team.sum(torch.stack([squares.sum(), squares.new_tensor(len(squares))])).tolist()
        self._watch.see(total / texts)
        return squares.sum() * (self._team.size / texts)
