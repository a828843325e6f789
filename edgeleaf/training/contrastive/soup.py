"""Model soup: one model whose weights are the average of several.

uniform: the mean of all. greedy: begin with the best by held-out score; in order of their scores, keep each further
model with which the average's score does not fall. Source: Wortsman et al. 2022 (arXiv 2203.05482), algorithm 1.
KaLM-Embedding-V2's first version averages checkpoints, after LM-Cocktail (arXiv 2311.13534); its public code lacks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from edgeleaf.errors import ModelError

Weights = Mapping[str, torch.Tensor]


def averaged(models: Sequence[Weights]) -> dict[str, torch.Tensor]:
    """Return the mean of weights, computed in float64, in the format of the first; whole numbers are the first's.

    Raises:
        ModelError: the models have different weights.
    """
    first = models[0]
    for number, other in enumerate(models[1:], 2):
        if first.keys() != other.keys() or any(first[name].shape != other[name].shape for name in first):
            raise ModelError(f"model {number} of the soup has other weights than the first; give models of one start")
    return {
        name: torch.stack([model[name].double() for model in models]).mean(dim=0).to(weight.dtype)
        if weight.is_floating_point()
        else weight.clone()
        for name, weight in first.items()
    }


def greedy(models: Sequence[Weights], score: Callable[[Weights], float]) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Return the greedy soup and the positions of the models in it, best first.

    Args:
        models: the weights.
        score: the held-out score of weights, higher is better.

    Raises:
        ModelError: the models have different weights.
    """
    scores = [score(model) for model in models]
    order = sorted(range(len(models)), key=lambda i: (-scores[i], i))
    members, best = [order[0]], scores[order[0]]
    for i in order[1:]:
        found = score(averaged([models[j] for j in [*members, i]]))
        if found >= best:
            members, best = [*members, i], found
    return averaged([models[i] for i in members]), members


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights on the processor."""
    return {name: weight.detach().cpu().clone() for name, weight in model.state_dict().items()}
