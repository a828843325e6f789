"""The student's side: a last phase after LEAF in which only queries are trained, among the teacher's documents.

    loss = mean_i ‖s_i - t_i‖² + β mean_i (1 - P_i)^γ KL( softmax(t_i·D_i/τ) ‖ softmax(s_i·D_i/τ) )

s_i and t_i are the student's and the teacher's vectors of a query. D_i are the batch's documents, in the teacher's
vectors, and mixes of the query's own negatives; they are frozen, so mixes cost nothing. P_i is the student's share of
the query's positive in D_i. The two parts come from LEAF (arXiv 2509.12539) and KaLM-Embedding-V2.5 (arXiv 2506.20923,
as reviews give it). Their sum is edgeleaf's own proposal.
"""

from __future__ import annotations

import torch

from edgeleaf.training.contrastive.distillation import similarity_divergence
from edgeleaf.training.contrastive.focal import focal_weights
from edgeleaf.training.contrastive.infonce import log_share


def frozen_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    documents: torch.Tensor,
    positive: torch.Tensor,
    allowed: torch.Tensor,
    *,
    beta: float,
    gamma: float,
    temperature: float,
    mixes: torch.Tensor | None = None,
    mixed: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the loss of a batch.

    Args:
        student, teacher: [rows, dim], unit vectors of the queries.
        documents: [documents, dim], the teacher's unit vectors.
        positive, allowed: as for :func:`log_share`.
        beta, gamma, temperature: β, γ, τ; γ = 0 weighs all queries alike.
        mixes: [rows, more, dim], each row's own further documents.
        mixed: bool [rows], whether a row has mixes.
    """
    given, wanted = student @ documents.T, teacher @ documents.T
    if mixes is not None and mixed is not None:
        given = torch.cat([given, torch.einsum("rd,rmd->rm", student, mixes)], dim=1)
        wanted = torch.cat([wanted, torch.einsum("rd,rmd->rm", teacher, mixes)], dim=1)
        allowed = torch.cat([allowed, mixed[:, None].expand(-1, mixes.shape[1])], dim=1)
    weights = focal_weights(log_share(given, positive, allowed, temperature=temperature), gamma)
    ranked = weights * similarity_divergence(wanted, given, temperature=temperature, allowed=allowed)
    return (student - teacher).square().sum(dim=1).mean() + beta * ranked.mean()
