"""Round float weights to int8 so that the layer's outputs, not its weights, are as accurate as possible everywhere.

This differs from rounding to nearest in two ways:

- **Error compensation** (GPTQ, arXiv 2210.17323): rows are rounded one after another, and later rows compensate for the
  errors of earlier ones, as far as their inputs are correlated in real texts.
- **No saturation.** Without VNNI, x86 kernels multiply uint8 by int8 with ``vpmaddubsw``, which adds two neighbouring
  products in 16 bits and saturates. So ``|w[2k]| + |w[2k+1]| <= 128`` in every column: 255 * 128 < 2**15. This keeps
  more of int8's range than the usual remedy, seven-bit weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

PAIR_LIMIT = 128
"""Largest allowed sum of the magnitudes of two weights that ``vpmaddubsw`` processes together."""
SCALE_BITS = 5
"""Significant bits of a column's scale. An int32 sum below 2**19 times such a scale is exact in float32, so it does not
matter whether a kernel adds the bias in the same instruction (FMA) or in the next one."""
BLOCK = 128
"""Number of rows whose errors are passed on together to all later rows."""
DAMPING = 0.1
"""Share of the mean input power that is added to each input's power, to keep the factorisation stable."""

_Floats = npt.NDArray[np.floating]


def smoothing(peak: _Floats, weight: _Floats, strength: float) -> npt.NDArray[np.float32]:
    """Return a scale for each input channel, so that one quantisation step suits outlier channels too.

    From SmoothQuant, arXiv 2211.10438.

    Args:
        peak: largest magnitude of each channel in real texts, [in].
        weight: [in, out].
        strength: 1 equalises the inputs, 0 equalises the weights.

    Returns:
        float32 [in]; inputs are divided by it, and weights are multiplied by it.
    """
    inputs = np.maximum(peak, 1e-3 * peak.max() + 1e-12).astype(np.float64)
    rows = np.abs(weight).max(axis=1).astype(np.float64)
    rows = np.maximum(rows, 1e-3 * rows.max() + 1e-12)
    return np.asarray(inputs**strength / rows ** (1 - strength), dtype=np.float32)


def column_scales(weight: _Floats) -> npt.NDArray[np.float32]:
    """Return the smallest scales [out], with few significant bits, at which no pair in a column exceeds the limit.

    Args:
        weight: [in, out].
    """
    size = np.abs(weight)
    if len(size) % 2:
        size = np.vstack([size, np.zeros_like(size[:1])])
    largest = np.maximum((size[0::2] + size[1::2]).max(axis=0) / PAIR_LIMIT, size.max(axis=0) / 127)
    return few_bits(largest)


def few_bits(scale: _Floats) -> npt.NDArray[np.float32]:
    """Round numbers up to the next ones that have few significant bits."""
    mantissa, exponent = np.frexp(np.maximum(scale, np.finfo(np.float32).tiny * 2**SCALE_BITS))
    return np.asarray(np.ldexp(np.ceil(mantissa * 2**SCALE_BITS) / 2**SCALE_BITS, exponent), dtype=np.float32)


def round_columns(
    weight: _Floats, moments: _Floats | None = None
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantise [in, out] symmetrically, with a scale per column.

    Pairs of rows with large inputs are rounded first, because many rows are then left to compensate for their errors.

    Args:
        weight: [in, out].
        moments: sums of products of the inputs over real texts, ``x.T @ x``, [in, in]; None rounds to nearest.

    Returns:
        int8 [in, out] within the pair limit, and float32 [out]; weight ≈ int8 * scale.
    """
    scale = column_scales(weight)
    order = np.arange(len(weight))
    if moments is not None and len(weight) % 2 == 0:
        power = np.diag(moments).reshape(-1, 2).sum(axis=1)
        order = order.reshape(-1, 2)[np.argsort(-power, kind="stable")].ravel()
        moments = moments[np.ix_(order, order)]
    rest = weight[order].astype(np.float64) / scale
    values = np.zeros(rest.shape, dtype=np.int8)

    def rounded(row: int) -> _Floats:
        before = np.abs(values[row - 1].astype(float)) if row % 2 else np.ones(rest.shape[1])
        room = PAIR_LIMIT - np.maximum(before, 1)
        values[row] = np.clip(np.round(rest[row]), -room, room)
        return np.asarray(values[row], dtype=np.float64)

    compensate(rest, moments, rounded, block=BLOCK)
    return values[np.argsort(order)], scale


def compensate(rest: _Floats, moments: _Floats | None, rounded: Callable[[int], _Floats], *, block: int) -> None:
    """Round the rows of a matrix one after another; later rows compensate for the errors of earlier ones (GPTQ).

    Args:
        rest: float64 [in, out], what is left to be rounded; changed in place.
        moments: as for :func:`round_columns`; None compensates for nothing.
        rounded: takes a row's number and returns the rounded row, [out].
        block: number of rows after which the errors are passed on to all later rows.
    """
    follow = np.eye(len(rest)) if moments is None else _compensation(moments)
    for start in range(0, len(rest), block):
        stop = min(start + block, len(rest))
        lost = np.zeros_like(rest[start:stop])
        for row in range(start, stop):
            lost[row - start] = rest[row] - rounded(row)
            rest[row + 1 : stop] -= np.outer(follow[row, row + 1 : stop], lost[row - start])
        rest[stop:] -= follow[start:stop, stop:].T @ lost


def _compensation(moments: _Floats) -> npt.NDArray[np.float64]:
    """Return how much of each row's error is subtracted from each later row, [in, in].

    This is the Cholesky factor of the inverse, with each row divided by its diagonal entry.
    """
    damped = moments.astype(np.float64)
    damped = damped + np.eye(len(damped)) * (DAMPING * np.trace(damped) / len(damped) + 1e-12)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    return np.asarray(upper / np.diag(upper)[:, None], dtype=np.float64)
