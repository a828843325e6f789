"""Does the same file give the same vectors on every kind of processor?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessorReport:
    """The same queries on another processor, beside this machine's own run.

    Args:
        name: as in ``edgeleaf.emulation.PROCESSORS``; ``native`` is this machine.
        queries: how many were compared.
        cosine_min, cosine_mean: of a query's vector there to its vector here.
        identical: how many vectors are equal to the last bit.
        worst_text: the query of the minimum.
    """

    name: str
    queries: int
    cosine_min: float
    cosine_mean: float
    identical: int
    worst_text: str
