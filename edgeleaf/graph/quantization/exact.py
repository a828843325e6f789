"""Float arithmetic that gives the same result on every processor, to the last bit.

Quantised layers amplify small differences: a different last bit changes one rounding, which changes twenty in the next
layer. After six layers, two runs of the same int8 file differ as much as int8 differs from float32
(docs/log/quantisation.md). So everything between two quantisations consists of operations whose result IEEE 754 fully
determines:

- Single ``Add``, ``Mul``, ``Div``, ``Sqrt``, ``Round`` and similar operations, element by element, are correctly
  rounded.
- The order of a sum differs between kernels. Sums are therefore computed in float64 and rounded to float32, so that
  their errors of 1e-16 change the float32 in only one of some hundred million numbers; or they are sums of whole
  numbers, which are exact.
- Every library approximates ``exp`` in its own way, so it is looked up in tables of 256 entries.

- All other functions are computed in float64 and rounded to float32, with the same rare exceptions as sums.

ONNX Runtime's ``LayerNormalization``, ``Gelu``, ``Softmax`` and fused attention differ in the last bits between SSE,
AVX, NEON and WebAssembly. Here they are written in the operations above.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgeleaf.graph.builder import GraphBuilder

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
Vector = npt.NDArray[np.float32]

NEGLIGIBLE_EPSILON = 1e-9
"""A layer normalisation's epsilon below this is left out, because it would change no float32."""
SMALLEST_LENGTH = np.float64(1e-30)
SHARES = 2**14
"""Attention shares are whole numbers that add up to about this number."""
EXP_SHIFT, EXP_RANGE = 4.0, 8.5
"""exp(x) is approximated by sigmoid(x - shift) / sigmoid(-shift), an error of 2%; below -range it counts as zero."""
LOGIT_RANGE = 7.12
"""Below minus this and above this, the sigmoid inside GELU counts as 0 and 1."""
GELU_LINEAR, GELU_CUBIC = 1.5957691, 0.07135481
"""Phi(x) is computed as sigmoid(linear * x + cubic * x**3), with an error of at most 0.0003 (Page 1977, the "tanh" form
of GELU)."""
GELU_LOWEST = -0.19
"""GELU's outputs are never lower."""
LEVELS = np.float32(254)
"""Number of steps between Phi = 0 and Phi = 1. With 255, Phi(0) would lie halfway between two steps."""


def layer_norm(
    g: GraphBuilder, x: str, gamma: Vector, beta: Vector | None, epsilon: float, *, level: bool = False
) -> str:
    """Apply layer normalisation to float32 [tokens, width] over its last axis; with ``beta`` None, nothing is added.

    ``level``: a row's numbers may all be equal; then its unit is 0, whatever epsilon is.
    """
    width = len(gamma)
    wide = g.Cast(x, to=DOUBLE)
    centred = g.Sub(wide, g.reduce("ReduceMean", wide, axes=[-1]))
    length = g.reduce("ReduceL2", centred, axes=[-1])  # [tokens, 1]: sqrt(width) times the deviation; gamma corrects it
    if epsilon >= NEGLIGIBLE_EPSILON:
        length = g.Sqrt(g.Add(g.Mul(length, length), np.float64(width * epsilon)))
    elif level:
        length = g.Max(length, SMALLEST_LENGTH)
    unit = g.Cast(g.Div(centred, length), to=FLOAT)
    scaled = g.Mul(unit, (gamma * np.sqrt(width)).astype(np.float32))
    return scaled if beta is None else g.Add(scaled, beta)


def rms_norm(g: GraphBuilder, x: str, gamma: Vector, epsilon: float) -> str:
    """Divide float32 [..., width] by its root mean square over the last axis, and multiply by ``gamma``."""
    width = len(gamma)
    wide = g.Cast(x, to=DOUBLE)
    length = g.reduce("ReduceL2", wide, axes=[-1])  # [..., 1]: sqrt(width) times the root mean square
    if epsilon >= NEGLIGIBLE_EPSILON:
        length = g.Sqrt(g.Add(g.Mul(length, length), np.float64(width * epsilon)))
    else:
        length = g.Max(length, SMALLEST_LENGTH)
    unit = g.Cast(g.Div(wide, length), to=FLOAT)
    return g.Mul(unit, (gamma.astype(np.float64) * np.sqrt(width)).astype(np.float32))


def attention(g: GraphBuilder, qkv: str, *, heads: str, width: int, mask: str | None, unit: float) -> str:
    """Apply multi-head self-attention; query, key and value are first rounded to whole numbers.

    Sums of products of whole numbers are exact in float32, in any order, as long as they stay below 2**24. This holds
    for the scores if ``|query| * |key| * width of a head`` is below 2**24, and for weighted sums of values up to 2**10.
    Both keep at least nine bits, while int8 has seven. ``exp`` is looked up, see :func:`_sigmoid`.

    Args:
        qkv: float32 [sequence * batch, 3 * width].
        heads: int64 [4]: sequence, batch, three times the number of heads, width of a head.
        mask: float32 [batch, 1, 1, sequence], added to the scores; None if there is no padding.
        unit: the logit that a score of 1 stands for.

    Returns:
        float32 [sequence * batch, width], whole numbers: the weighted sums of values, times :data:`SHARES`.
    """
    query, key, value = g.node("Split", g.Reshape(g.Round(qkv), heads), outputs=3, axis=2)
    scores = g.FusedMatMul(query, key, transBatchA=1, transBatchB=1, transB=1)  # [batch, heads, sequence, sequence]
    if mask is not None:
        scores = g.Add(scores, mask)
    mixed = g.FusedMatMul(_shares(g, scores, unit), value, transBatchB=1)  # [batch, heads, sequence, head]
    return g.Reshape(g.Transpose(mixed, perm=[2, 0, 1, 3]), np.array([-1, width]))


def masked_attention(g: GraphBuilder, query: str, key: str, value: str, *, mask: str, unit: float) -> str:
    """Apply attention to whole numbers, float32 [batch, heads, sequence, width of a head], with any mask.

    Sums of products are exact as in :func:`attention`, whose limits apply.

    Args:
        query, key, value: whole numbers.
        mask: float32, added to the scores: whole numbers in the scores' unit, not below -2**26.
        unit: the logit that a score of 1 stands for.

    Returns:
        float32 [batch, heads, sequence, width], whole numbers: the weighted sums of values, times :data:`SHARES`.
    """
    scores = g.Add(g.FusedMatMul(query, key, transB=1), mask)  # [batch, heads, sequence, sequence]
    return g.MatMul(_shares(g, scores, unit), value)


def _shares(g: GraphBuilder, scores: str, unit: float) -> str:
    """Return each score's share of the softmax, as whole numbers that add up to about :data:`SHARES`."""
    below = g.Sub(scores, g.reduce("ReduceMax", scores, axes=[-1]))
    step = (EXP_SHIFT + EXP_RANGE) / 255
    zero = round(255 - EXP_SHIFT / step)
    logits = g.QuantizeLinear(below, np.float32(step / unit), np.uint8(zero))
    top = 1 / (1 + np.exp(step * (255 - zero)))
    powers = _sigmoid(g, logits, step, 255, top / 255)
    whole = g.Mul(g.reduce("ReduceSum", powers, axes=[-1]), np.float32(1 / SHARES))
    return g.Round(g.Div(powers, whole))


def silu(g: GraphBuilder, x: str) -> str:
    """Apply SiLU, ``x * sigmoid(x)``, to float32 tensors.

    The sigmoid comes from the table that GELU uses; the rounding inside changes it by 0.009 at most.
    """
    step = 2 * LOGIT_RANGE / 255
    gate = _sigmoid(g, g.QuantizeLinear(x, np.float32(step), np.uint8(128)), step, 128, 1 / float(LEVELS))
    return g.Mul(g.Mul(gate, np.float32(1) / LEVELS), x)


def gelu(g: GraphBuilder, x: str) -> str:
    """Apply GELU to float32 [tokens, width] and multiply by :data:`LEVELS`.

    The rounding inside causes errors of up to 0.006, less than int8 does.
    """
    step = 2 * LOGIT_RANGE / 255
    cubic = g.Mul(g.Add(g.Mul(x, x), np.float32(GELU_LINEAR / GELU_CUBIC)), x)
    logits = g.QuantizeLinear(cubic, np.float32(step / GELU_CUBIC), np.uint8(128))
    return g.Mul(_sigmoid(g, logits, step, 128, 1 / float(LEVELS)), x)


def _sigmoid(g: GraphBuilder, logits: str, step: float, zero: int, unit: float) -> str:
    """Return the sigmoid of uint8 logits, in whole units, as float32.

    ONNX Runtime looks the sigmoid up in a table of 256 entries that it fills when the model is loaded. This table is
    the same everywhere, unless an entry is so close to the middle between two levels that a float's error decides.
    Tests check that no entry is.
    """
    zeros = np.uint8(zero), np.uint8(0)
    return g.Cast(g.QLinearSigmoid(logits, np.float32(step), zeros[0], np.float32(unit), zeros[1]), to=FLOAT)
