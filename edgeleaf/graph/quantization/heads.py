"""Attention with any mask, over queries, keys and values that any exact nodes have made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.quantization import exact

SUM_BITS, VALUE_BITS = 24, 10
"""Bits of a sum of whole numbers that is exact in float32, and bits that attention's values may have."""
SMALLEST_UNIT = 2.0**-20
"""The smallest logit that a score of 1 may stand for, so that a padding token's logit is at most -64."""
MASKED = np.float32(-(2**26))
"""Added to the score of a padding token, to make it lower than all others, whose magnitudes are less than 2**24."""
SMALLEST_PEAK = 1e-3
"""A channel counts as at least this large, compared with the largest channel."""

_Peaks = npt.NDArray[np.floating]


@dataclass(frozen=True)
class HeadScales:
    """By what an attention's inputs are multiplied before they are rounded to whole numbers.

    A query's channel may be multiplied by anything that the key's is divided by. So both get the same peak, and no
    channel with large numbers takes the room of the others.

    Args:
        query, key, value: float32 [heads, 1, width].
        unit: the logit that a score of 1 stands for.
    """

    query: npt.NDArray[np.float32]
    key: npt.NDArray[np.float32]
    value: npt.NDArray[np.float32]
    unit: float

    @staticmethod
    def of(query: _Peaks, key: _Peaks, value: _Peaks, *, scale: float) -> HeadScales:
        """Return the largest scales at which all sums are exact.

        Args:
            query, key, value: largest magnitudes of each channel, [heads, width].
            scale: what scores are multiplied by.
        """
        parts = [np.asarray(peak, np.float64)[:, None] for peak in (query, key, value)]
        query, key, value = (np.maximum(peak, SMALLEST_PEAK * peak.max() + 1e-12) for peak in parts)
        largest = float((query * key).sum(axis=-1).max())
        unit = max(scale * largest / 2.0**SUM_BITS, SMALLEST_UNIT)
        gain, balance = np.sqrt(scale / unit), np.sqrt(key / query)
        factors = (gain * balance, gain / balance, 2.0**VALUE_BITS / value)
        of_query, of_key, of_value = (np.asarray(factor, np.float32) for factor in factors)
        return HeadScales(of_query, of_key, of_value, unit)

    def mask(self, g: GraphBuilder, mask: str, *, hides: bool) -> str:
        """Turn what is added to logits into whole numbers; ``hides``: it only hides tokens, or adds nothing."""
        whole = mask if hides else g.Round(g.Mul(mask, np.float32(1 / self.unit)))
        return g.Max(whole, MASKED)

    def attention(self, g: GraphBuilder, tensors: Sequence[str], mask: str) -> str:
        """Apply attention to query, key and value, float32 [batch, heads, sequence, width]; return the same shape."""
        query, key, value = tensors
        most = np.float32(2**VALUE_BITS)
        mixed = exact.masked_attention(
            g,
            g.Round(g.Mul(query, self.query)),
            g.Round(g.Mul(key, self.key)),
            g.Clip(g.Round(g.Mul(value, self.value)), -most, most),
            mask=mask,
            unit=self.unit,
        )
        return g.Mul(mixed, (1 / (exact.SHARES * self.value.astype(np.float64))).astype(np.float32))
