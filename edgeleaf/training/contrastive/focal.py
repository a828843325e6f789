"""Focal reweighting: queries that a model already answers count less.

    w_i = (1 - P_i)^γ,   loss = mean(-w_i log P_i),   γ = 0.5

Source: KaLM-Embedding-V2, arXiv 2506.20923, as reviews give it (secondary); after Lin et al. 2017 (arXiv 1708.02002).
That no gradient goes through w is presumed.
"""

from __future__ import annotations

import torch


def focal_weights(log_share: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the weight of each row, in [0, 1], without a gradient.

    Args:
        log_share: [rows], log P of each row's positive.
        gamma: γ; 0 gives every row the weight 1.
    """
    easy: torch.Tensor = -torch.expm1(log_share.detach())  # 1 - P without rounding where P is near 1
    return easy.clamp(min=0.0).pow(gamma)
