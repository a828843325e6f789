"""The optimizer of a student: AdamW, and on a processor SparseAdam for its token table.

The table holds half of a small student's weights, and a batch of short texts reads one row in a hundred. Its dense
gradient, its norm and AdamW over all of its rows took a fifth of a step on two cores. With a sparse gradient, only rows
that were read are updated. Other attempts, such as Muon, are described in docs/log/training.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch


class Parts(torch.optim.Optimizer):  # type: ignore[misc]
    """Several optimizers, each for its own weights, that act as one.

    Args:
        parts: optimizers by name; their states are stored under these names.
        max_norm: if the L2 norm of the gradients that are not sparse is larger, they are scaled down to it.
    """

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer], *, max_norm: float) -> None:
        self._parts = dict(parts)
        self._max_norm = max_norm
        weights = [weight for part in parts.values() for group in part.param_groups for weight in group["params"]]
        super().__init__(weights, {})
        self._share()

    def _share(self) -> None:
        """Make the parts' parameter groups this optimizer's own, so that a schedule changes them."""
        self.param_groups = [group for part in self._parts.values() for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Clip the gradients, and step every part."""
        loss = None if closure is None else closure()
        weights = [weight for group in self.param_groups for weight in group["params"]]
        dense = [weight for weight in weights if weight.grad is not None and not weight.grad.is_sparse]
        torch.nn.utils.clip_grad_norm_(dense, self._max_norm)
        for part in self._parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return every part's state by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
        self._share()


def student_optimizer(
    model: torch.nn.Module, *, lr: float, weight_decay: float, decayed: Collection[str], max_norm: float
) -> Parts:
    """Return the optimizer of a student.

    Args:
        model: a sentence-transformers model whose first module holds a transformers model; on a processor its token
            table's gradient becomes sparse.
        lr: the learning rate of all weights.
        weight_decay: weight decay of the weights named in ``decayed``, except the token table, whose seldom read rows
            would fade.
        decayed: names of parameters of the model.
        max_norm: see :class:`Parts`.
    """
    table = model[0].auto_model.get_input_embeddings()
    by_rows = table.weight.device.type == "cpu"
    table.sparse = by_rows
    groups: dict[float, list[torch.nn.Parameter]] = {weight_decay: [], 0.0: []}
    for name, weight in model.named_parameters():
        if weight is not table.weight:
            groups[weight_decay if name in decayed else 0.0].append(weight)
    if not by_rows:
        groups[0.0].append(table.weight)
    parts: dict[str, torch.optim.Optimizer] = {
        "rest": torch.optim.AdamW(
            [{"params": weights, "weight_decay": decay} for decay, weights in groups.items() if weights],
            lr=lr,
            fused=True,
        )
    }
    if by_rows:
        parts["table"] = torch.optim.SparseAdam([table.weight], lr=lr)
    return Parts(parts, max_norm=max_norm)
