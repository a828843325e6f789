"""Summaries of cosines to the teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DIGITS = 6
"""Figures of a certificate are rounded to this."""


@dataclass(frozen=True)
class Summary:
    """A distribution of cosines: mean, 5th and 1st percentile (interpolated), minimum."""

    mean: float
    p05: float
    p01: float
    min: float


def summary(cosines: npt.NDArray[np.float64]) -> Summary:
    """Summarise cosines [n].

    Raises:
        ValueError: no cosines.
    """
    if not cosines.size:
        raise ValueError("no cosines to summarise")
    p05, p01 = np.percentile(cosines, [5, 1])
    return Summary(mean=float(cosines.mean()), p05=float(p05), p01=float(p01), min=float(cosines.min()))
