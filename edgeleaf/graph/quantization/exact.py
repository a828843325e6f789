"""Float arithmetic that comes out the same on every processor, to the last bit.

Quantised layers amplify: a last bit that differs flips a rounding, one flipped rounding flips twenty in the next layer,
and after six layers two runs of one int8 file differ as much as int8 from float32 (docs/log/quantisation.md). So
whatever stands between two quantisations is made of operations that IEEE 754 leaves no choice about:

- single ``Add``, ``Mul``, ``Div``, ``Sqrt``, ``Round`` and the like, element by element, are correctly rounded;
- sums, whose order differs between kernels, are computed in float64 and rounded to float32, so that their errors of
  1e-16 change the float32 once in some hundred million numbers; or they are sums of whole numbers, which are exact;
- ``exp``, which every library approximates in its own way, is looked up in tables of 256 entries.

``LayerNormalization``, ``Gelu``, ``Softmax`` and the fused attention of ONNX Runtime, which differ in the last bits
between SSE, AVX, NEON and WebAssembly, are written out here in such operations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
Vector = npt.NDArray[np.float32]

NEGLIGIBLE_EPSILON = 1e-9
"""A smaller epsilon of a layer normalisation is left out: it would change no float32."""
SHARES = 2**14
"""Shares of attention are whole numbers that add up to about this."""
EXP_SHIFT, EXP_RANGE = 4.0, 8.5
"""exp(x) is taken for sigmoid(x - shift) / sigmoid(-shift), which is 2% off; below -range it counts as zero."""
LOGIT_RANGE = 7.12
"""The sigmoid inside GELU is taken for 0 and 1 beyond."""
GELU_LINEAR, GELU_CUBIC = 1.5957691, 0.07135481
"""Phi(x) is sigmoid(linear * x + cubic * x**3), 0.0003 off at most (Page 1977, the "tanh" form of GELU)."""
GELU_LOWEST = -0.19
"""No output of GELU is lower."""
LEVELS = np.float32(254)
"""Units of Phi. With 255, Phi(0) would lie in the middle between two."""


def layer_norm(g: GraphBuilder, x: str, gamma: Vector, beta: Vector | None, epsilon: float) -> str:
    """Layer normalisation of float32 [tokens, width] over its last axis; None adds nothing."""
    width = len(gamma)
    wide = g.Cast(x, to=DOUBLE)
    centred = g.Sub(wide, g.reduce("ReduceMean", wide, axes=[-1]))
    length = g.reduce("ReduceL2", centred, axes=[-1])  # [tokens, 1]: sqrt(width) deviations, which gamma makes up for
    if epsilon >= NEGLIGIBLE_EPSILON:
        length = g.Sqrt(g.Add(g.Mul(length, length), np.float64(width * epsilon)))
    unit = g.Cast(g.Div(centred, length), to=FLOAT)
    scaled = g.Mul(unit, (gamma * np.sqrt(width)).astype(np.float32))
    return scaled if beta is None else g.Add(scaled, beta)


def attention(g: GraphBuilder, qkv: str, *, heads: str, width: int, mask: str | None, unit: float) -> str:
    """Multi-head self-attention; query, key and value are rounded to whole numbers first.

    Products of whole numbers add up exactly in float32, in any order, as long as they stay below 2**24: so do scores
    where ``|query| * |key| * width of a head`` does, and the weighted sums of values up to 2**10. Of both, nine bits
    and more are left, where int8 has seven. ``exp`` is looked up, see :func:`_sigmoid`.

    Args:
        qkv: float32 [sequence * batch, 3 * width].
        heads: int64 [4]: sequence, batch, three times the heads, width of a head.
        mask: float32 [batch, 1, 1, sequence], added to the scores; None where there is no padding.
        unit: the logit that a score of 1 stands for.

    Returns:
        float32 [sequence * batch, width], whole numbers: the mixed values times :data:`SHARES`.
    """
    query, key, value = g.node("Split", g.Reshape(g.Round(qkv), heads), outputs=3, axis=2)
    scores = g.FusedMatMul(query, key, transBatchA=1, transBatchB=1, transB=1)  # [batch, heads, sequence, sequence]
    if mask is not None:
        scores = g.Add(scores, mask)
    below = g.Sub(scores, g.reduce("ReduceMax", scores, axes=[-1]))
    step = (EXP_SHIFT + EXP_RANGE) / 255
    zero = round(255 - EXP_SHIFT / step)
    logits = g.QuantizeLinear(below, np.float32(step / unit), np.uint8(zero))
    top = 1 / (1 + np.exp(step * (255 - zero)))
    powers = _sigmoid(g, logits, step, 255, top / 255)
    whole = g.Mul(g.reduce("ReduceSum", powers, axes=[-1]), np.float32(1 / SHARES))
    mixed = g.FusedMatMul(g.Round(g.Div(powers, whole)), value, transBatchB=1)  # [batch, heads, sequence, head]
    return g.Reshape(g.Transpose(mixed, perm=[2, 0, 1, 3]), np.array([-1, width]))


def gelu(g: GraphBuilder, x: str) -> str:
    """GELU of float32 [tokens, width], times :data:`LEVELS`. Rounding inside costs up to 0.006, less than int8 does."""
    step = 2 * LOGIT_RANGE / 255
    cubic = g.Mul(g.Add(g.Mul(x, x), np.float32(GELU_LINEAR / GELU_CUBIC)), x)
    logits = g.QuantizeLinear(cubic, np.float32(step / GELU_CUBIC), np.uint8(128))
    return g.Mul(_sigmoid(g, logits, step, 128, 1 / float(LEVELS)), x)


def _sigmoid(g: GraphBuilder, logits: str, step: float, zero: int, unit: float) -> str:
    """Sigmoid of uint8 logits in whole units, float32.

    ONNX Runtime looks it up in a table of 256 entries that it fills when the model is loaded. A table is the same
    everywhere, unless an entry lies within a float's error of the middle between two levels: tests see to that.
    """
    zeros = np.uint8(zero), np.uint8(0)
    return g.Cast(g.QLinearSigmoid(logits, np.float32(step), zeros[0], np.float32(unit), zeros[1]), to=FLOAT)
