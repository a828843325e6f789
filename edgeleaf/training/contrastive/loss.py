"""The loss of a stage: the contrastive loss with whatever techniques its recipe asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from edgeleaf.errors import TrainingError
from edgeleaf.models.loading import autocast
from edgeleaf.recipe.teach import StageSpec
from edgeleaf.texts.taught import PairSet
from edgeleaf.training.contrastive.batch import Batch
from edgeleaf.training.contrastive.cached import Features, cached_loss
from edgeleaf.training.contrastive.distillation import similarity_divergence
from edgeleaf.training.contrastive.focal import focal_weights
from edgeleaf.training.contrastive.frozen import frozen_loss
from edgeleaf.training.contrastive.infonce import log_share
from edgeleaf.training.contrastive.labels import label_divergence
from edgeleaf.training.contrastive.matryoshka import prefixes
from edgeleaf.training.contrastive.mixing import draw_mixes, list_mix, pair_mixes


@dataclass(frozen=True)
class Signals:
    """What a stage learns besides its pairs.

    Attributes:
        teacher_queries, teacher_documents: [n, dim], a teacher's unit vectors of the pairs' queries and documents.
        labels: [rows, 1 + negatives], scores of each row's positive and negatives, NaN for none.
    """

    teacher_queries: npt.NDArray[np.floating[Any]] | None = None
    teacher_documents: npt.NDArray[np.floating[Any]] | None = None
    labels: npt.NDArray[np.floating[Any]] | None = None


class ContrastiveLoss(torch.nn.Module):  # type: ignore[misc]
    """The loss of one stage, as sentence-transformers' trainer calls it.

    Args:
        model: the model that learns.
        pairs: the stage's pairs.
        spec: its techniques.
        signals: what they need.
    """

    def __init__(self, model: torch.nn.Module, pairs: PairSet, spec: StageSpec, signals: Signals) -> None:
        super().__init__()
        self.model = model
        self._pairs, self._spec, self._signals = pairs, spec, signals

    def forward(self, features: Sequence[Features], labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            features: tokens of the queries, one a row, and of the batch's documents; without the latter if those are
                frozen.
            labels: int64 [rows], positions of the rows in the pairs.

        Raises:
            TrainingError: the loss is no longer a number.
        """
        rows = labels.tolist()
        batch = Batch.of(self._pairs, rows, negatives=self._spec.negatives).to(labels.device)

        def loss_of(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
            return self.of_vectors(vectors, rows, batch)

        if self._spec.mini_batch is None:
            loss = loss_of([self._encode(part) for part in features])
        else:
            loss = cached_loss(self._encode, features, loss_of, mini_batch=self._spec.mini_batch)
        if not bool(torch.isfinite(loss.detach())):
            raise TrainingError("the loss is no longer a number; lower the stage's learning_rate, then run again")
        return loss

    def of_vectors(self, vectors: Sequence[torch.Tensor], rows: Sequence[int], batch: Batch) -> torch.Tensor:
        """Return the loss from vectors: [rows, dim] of queries, and [documents, dim] unless those are frozen."""
        if self._spec.frozen is not None:
            return self._of_frozen(normalize(vectors[0], dim=1), batch)
        total = torch.zeros((), device=vectors[0].device, dtype=vectors[0].dtype)
        for weight, (queries, documents) in prefixes(self._spec.matryoshka, *vectors):
            total = total + weight * self._of_prefix(queries, documents, rows, batch)
        return total

    def _encode(self, features: Features) -> torch.Tensor:
        with autocast(features["input_ids"].device.type):
            found: torch.Tensor = self.model(dict(features))["sentence_embedding"]
        return found if found.dtype == torch.float64 else found.float()

    def _of_prefix(
        self, queries: torch.Tensor, documents: torch.Tensor, rows: Sequence[int], batch: Batch
    ) -> torch.Tensor:
        spec = self._spec
        scores = queries @ documents.T
        mixes, mixed = self._mixes(queries, documents, batch)
        extra = None
        if mixes is not None and mixed is not None:
            extra = torch.einsum("rd,rmd->rm", queries, mixes).masked_fill(~mixed[:, None], -torch.inf)
        shares = log_share(scores, batch.positive, batch.allowed, temperature=spec.temperature, extra=extra)
        weights = torch.ones_like(shares) if spec.focal is None else focal_weights(shares, spec.focal.gamma)
        loss = -(weights * shares).mean()
        if spec.distillation is not None:
            wanted = self._teacher(batch.queries, queries) @ self._teacher_documents(batch, queries).T
            diverged = similarity_divergence(
                wanted, scores, temperature=spec.distillation.temperature, allowed=batch.allowed
            )
            loss = loss + spec.distillation.weight * diverged.mean()
        if spec.labels is not None:
            assert self._signals.labels is not None
            columns = torch.cat([batch.positive[:, None], batch.negatives], dim=1)
            given = _tensor(self._signals.labels[list(rows), : columns.shape[1]], queries)
            diverged = label_divergence(given, scores, columns, temperature=spec.labels.temperature)
            loss = loss + spec.labels.weight * diverged.mean()
        return loss

    def _of_frozen(self, queries: torch.Tensor, batch: Batch) -> torch.Tensor:
        spec = self._spec
        assert spec.frozen is not None
        teacher, documents = self._teacher(batch.queries, queries), self._teacher_documents(batch, queries)
        mixes, mixed = self._mixes(teacher, documents, batch)
        return frozen_loss(
            queries,
            teacher,
            documents,
            batch.positive,
            batch.allowed,
            beta=spec.frozen.beta,
            gamma=0.0 if spec.focal is None else spec.focal.gamma,
            temperature=spec.frozen.temperature,
            mixes=mixes,
            mixed=mixed,
        )

    def _mixes(
        self, queries: torch.Tensor, documents: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return each row's mixes [rows, more, dim], and which rows have two negatives to mix."""
        spec = self._spec.mixing
        there = batch.negatives >= 0
        if spec is None or there.shape[1] < 2:
            return None, None
        own = documents[batch.negatives.clamp(min=0)]
        found = []
        if "pairs" in spec.kinds:
            first, second, share = draw_mixes(there, spec.count)
            device = own.device
            found.append(pair_mixes(own, first.to(device), second.to(device), share.to(own)))
        if "lists" in spec.kinds:
            temperature = self._spec.temperature if self._spec.frozen is None else self._spec.frozen.temperature
            found.append(list_mix(queries, own, there, temperature=temperature))
        return torch.cat(found, dim=1), there.sum(dim=1) >= 2

    def _teacher(self, queries: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        assert self._signals.teacher_queries is not None
        return normalize(_tensor(self._signals.teacher_queries[list(queries)], like), dim=1)

    def _teacher_documents(self, batch: Batch, like: torch.Tensor) -> torch.Tensor:
        assert self._signals.teacher_documents is not None
        return normalize(_tensor(self._signals.teacher_documents[batch.documents], like), dim=1)


def _tensor(rows: npt.NDArray[np.floating[Any]], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)).to(like)
