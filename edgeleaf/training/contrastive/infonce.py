"""InfoNCE with the denominator of KaLM-Embedding-V2.

    Z_i = exp(s(q_i, p_i)/τ) + Σ_{j≠i} exp(s(q_i, p_j)/τ) + Σ_j Σ_k exp(s(q_i, n_jk)/τ)
    P_i = exp(s(q_i, p_i)/τ) / Z_i

All positives of the batch and the hard negatives of all of its queries are in Z_i. Source: arXiv 2506.20923 as reviews
give it (secondary: the paper's text was not at hand); τ = 0.01 and groups of one positive and seven negatives are in
its code. Two things differ here. A document that occurs twice in a batch counts once. Another known positive of the
query does not count: it would be a false negative, which the formula over distinct texts does not meet.
"""

from __future__ import annotations

import torch


def log_share(
    scores: torch.Tensor,
    positive: torch.Tensor,
    allowed: torch.Tensor,
    *,
    temperature: float,
    extra: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return log P of each row, [rows], 0 at most; its negative mean is InfoNCE.

    Args:
        scores: [rows, documents], cosines of queries and documents.
        positive: int64 [rows], column of each row's positive.
        allowed: bool [rows, documents], False for columns that do not count in the row's Z.
        temperature: τ.
        extra: [rows, more], cosines of documents that only this row has, such as mixes; -inf for none.
    """
    logits = scores.masked_fill(~allowed, -torch.inf) / temperature
    if extra is not None:
        logits = torch.cat([logits, extra / temperature], dim=1)
    found: torch.Tensor = logits.log_softmax(dim=1).gather(1, positive[:, None]).squeeze(1)
    return found
