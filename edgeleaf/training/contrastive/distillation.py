"""Contrastive distillation: a model learns how a stronger one ranks the documents of a batch.

    loss = mean_i KL( softmax(s_T(q_i, ·)/τ) ‖ softmax(s(q_i, ·)/τ) ),   τ = 0.05, over documents of the batch

Added to the contrastive loss. Source: KaLM-Embedding-V2.5, arXiv 2506.20923, as reviews give it (secondary). It
replaced the averaging of checkpoints.
"""

from __future__ import annotations

import torch
from torch.nn.functional import kl_div


def similarity_divergence(
    teacher: torch.Tensor, student: torch.Tensor, *, temperature: float, allowed: torch.Tensor | None = None
) -> torch.Tensor:
    """Return KL(teacher ‖ student) of each row, [rows], 0 or more.

    Args:
        teacher, student: [rows, documents], similarities; no gradient goes through the teacher's.
        temperature: τ of both.
        allowed: bool [rows, documents], columns that count; all by default. Each row needs one.
    """
    logits = [part / temperature for part in (teacher.detach(), student)]
    if allowed is not None:
        logits = [part.masked_fill(~allowed, -1e9) for part in logits]  # finite, so that 0 · (−∞) does not arise
    wanted, given = (part.log_softmax(dim=1) for part in logits)
    found: torch.Tensor = kl_div(given, wanted, reduction="none", log_target=True).sum(dim=1)
    return found
