"""Online hard-negative mixing: harder negatives between a query's own, at the cost of a weighted sum.

    pairs  h = λ n_j + (1 - λ) n_k,   λ ~ Beta(2, 2)
    lists  h = Σ_m λ_m n_m,   λ = softmax(s(q, n_m)/τ)

Mixes are normalised and added to the query's own Z, as further hard negatives. Source: KaLM-Embedding-V2, arXiv
2506.20923, as reviews give it (secondary). The weights of lists are presumed, and so is that no gradient goes through
them: Σλ = 1 "by similarity" is all that is known.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

BETA = 2.0


def pair_mixes(vectors: torch.Tensor, first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return mixes of two negatives, [rows, mixes, dim], unit norm.

    Args:
        vectors: [rows, most, dim], each row's own negatives, unit norm.
        first, second: int64 [rows, mixes], which of them are mixed.
        share: [rows, mixes], λ, the share of the first.
    """
    wide = (*first.shape, vectors.shape[2])
    one, other = (vectors.gather(1, part[:, :, None].expand(wide)) for part in (first, second))
    return normalize(share[:, :, None] * one + (1 - share[:, :, None]) * other, dim=2)


def list_mix(queries: torch.Tensor, vectors: torch.Tensor, there: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Return a mix of all of each row's negatives, [rows, 1, dim], unit norm.

    Args:
        queries: [rows, dim], unit norm.
        vectors: [rows, most, dim], each row's own negatives, unit norm.
        there: bool [rows, most], which of them exist; a row without any gets a vector of zeros.
        temperature: τ.
    """
    with torch.no_grad():
        scores = torch.einsum("rd,rmd->rm", queries, vectors) / temperature
        shares = scores.masked_fill(~there, -torch.inf).softmax(dim=1).nan_to_num(0.0)
    return normalize(torch.einsum("rm,rmd->rd", shares, vectors), dim=1)[:, None]


def draw_mixes(there: torch.Tensor, mixes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw what :func:`pair_mixes` takes by torch's own generator: two different negatives of each row, and λ.

    Args:
        there: bool [rows, most], which negatives exist, from the left; a row needs two.
        mixes: mixes a row.

    Returns:
        first, second, share, each [rows, mixes]; on the processor, in float32.
    """
    counts = there.sum(dim=1).cpu()
    rows = len(counts)
    first = (torch.rand(rows, mixes) * counts[:, None]).long()
    second = (torch.rand(rows, mixes) * (counts - 1).clamp(min=1)[:, None]).long()
    second = torch.where(second >= first, second + 1, second)  # any but the first
    share = torch.distributions.Beta(BETA, BETA).sample((rows, mixes))
    last = (counts - 1).clamp(min=0)[:, None]
    return torch.minimum(first, last), torch.minimum(second, last), share
