"""Cached gradients: batches of any size in the memory of a mini-batch, with the same gradient.

A contrastive loss needs the vectors of the whole batch, but not the activations behind them. So the batch is encoded
without gradients; the loss gives the gradient of each vector; and each mini-batch is encoded again, with gradients, and
receives those of its vectors. Random numbers (dropout) are those of the first time. Source: GradCache, Gao et al. 2021
(arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Features = Mapping[str, Any]


def cached_loss(
    encode: Callable[[Features], torch.Tensor],
    parts: Sequence[Features],
    loss_of: Callable[[Sequence[torch.Tensor]], torch.Tensor],
    *,
    mini_batch: int,
) -> torch.Tensor:
    """Return a loss whose ``backward`` sends the gradients through ``encode`` one mini-batch at a time.

    Args:
        encode: turns features of texts into vectors [texts, dim].
        parts: features of several groups of texts, such as queries and documents.
        loss_of: computes the loss from the vectors of each group.
        mini_batch: texts that are encoded with gradients at a time.
    """
    pieces = [_pieces(part, mini_batch) for part in parts]
    if not torch.is_grad_enabled():
        return loss_of([torch.cat([encode(piece) for piece in group]) for group in pieces])
    states: list[list[_Random]] = []
    vectors: list[torch.Tensor] = []
    with torch.no_grad():
        for group in pieces:
            states.append([])
            found = []
            for piece in group:
                states[-1].append(_Random())
                found.append(encode(piece))
            vectors.append(torch.cat(found))
    leaves = [part.detach().requires_grad_() for part in vectors]
    loss = loss_of(leaves)
    gradients = torch.autograd.grad(loss, leaves)
    result: torch.Tensor = loss.detach().requires_grad_()

    def again(scale: torch.Tensor) -> None:
        with torch.enable_grad():
            for group, random, gradient in zip(pieces, states, gradients, strict=True):
                start = 0
                for piece, state in zip(group, random, strict=True):
                    with state:
                        found = encode(piece)
                    wanted = gradient[start : start + len(found)]
                    start += len(found)
                    found.backward(wanted.to(found.dtype) * scale)

    result.register_hook(again)
    return result


def _pieces(features: Features, size: int) -> list[dict[str, Any]]:
    count = len(features["input_ids"])
    return [
        {
            name: part[start : start + size] if torch.is_tensor(part) and part.ndim and len(part) == count else part
            for name, part in features.items()
        }
        for start in range(0, count, size)
    ]


class _Random:
    """The state of torch's random numbers now; entering it again repeats them, leaving it restores the others."""

    def __init__(self) -> None:
        self._here = torch.get_rng_state()
        self._cards = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=range(len(self._cards)), enabled=True)
        self._fork.__enter__()
        torch.set_rng_state(self._here)
        for card, state in enumerate(self._cards):
            torch.cuda.set_rng_state(state, card)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
