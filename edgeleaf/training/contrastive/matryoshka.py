"""Matryoshka weights: shorter vectors are trained too.

    loss = Σ_m c_m loss(v[:m] / ‖v[:m]‖),   c = 1, 0.3, 0.2, 0.1, 0.1 for 896, 512, 256, 128, 64 in KaLM-Embedding-V2

Every prefix is normalised again. Source: Kusupati et al. 2022 (arXiv 2205.13147); the weights and the normalisation are
in KaLM's public code.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import normalize

from edgeleaf.errors import TrainingError
from edgeleaf.recipe.teach import MatryoshkaSpec


def prefixes(spec: MatryoshkaSpec | None, *vectors: torch.Tensor) -> Iterator[tuple[float, tuple[torch.Tensor, ...]]]:
    """Yield (weight, vectors of unit norm cut to a width); without a spec only the whole vectors, with weight 1.

    Args:
        spec: widths and weights.
        vectors: tensors [n, dim] of one width.

    Raises:
        TrainingError: a width is above that of the vectors.
    """
    whole = vectors[0].shape[1]
    dims = (whole,) if spec is None else spec.dims
    weights = spec.weights if spec is not None and spec.weights is not None else (1.0,) * len(dims)
    for dim, weight in zip(dims, weights, strict=True):
        if dim > whole:
            raise TrainingError(f"matryoshka.dims has {dim}; the model's vectors have {whole} numbers")
        yield weight, tuple(normalize(part[:, :dim], dim=1) for part in vectors)
