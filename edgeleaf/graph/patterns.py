"""Fuse attention and residual normalisations of a torch export into single nodes that the quantiser knows.

torch's exporter writes attention as two matrix products with a softmax between them, and a padding mask as a subgraph
of a dozen nodes. Both are recognised by their structure and, where that is not enough, by running the graph: a mask
counts as a padding mask only if every token sees all real tokens and no padding. Anything that is not recognised stays
unchanged: its result is exact, but it runs slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeleaf.graph.indexed import BATCH, LENGTHS, MASKED, SEQUENCE, IndexedGraph

_HEADS_FIRST = [0, 2, 1, 3]
_KEYS = [0, 2, 3, 1]


@dataclass(frozen=True)
class _Projection:
    """An input of an attention: a linear layer's output before the bias, the bias, the heads, the width, a factor."""

    name: str
    bias: npt.NDArray[np.float32] | None
    heads: int
    width: int
    factor: float


def fuse_attention(model: onnx.ModelProto) -> int:
    """Replace self-attentions with a padding mask by ``MultiHeadAttention``, in place; return how many.

    Args:
        model: float32, with the inputs ``input_ids`` and ``attention_mask``, padded on the right.
    """
    found = IndexedGraph(model)
    fused = 0
    for softmax in [node for node in found.graph.node if node.op_type == "Softmax"]:
        fused += _fuse_one(found, softmax)
    if fused:
        _append_mask(found.graph)
    return fused


def fuse_skip_norms(model: onnx.ModelProto) -> int:
    """Replace each residual addition and the layer normalisation after it by one node, in place; return how many."""
    found = IndexedGraph(model)
    fused = 0
    for norm in [node for node in found.graph.node if node.op_type == "LayerNormalization"]:
        total = found.maker(norm.input[0], "Add")
        if total is None or found.only_reader(norm.input[0], "LayerNormalization") is None or len(norm.input) < 3:
            continue
        shapes = {found.shape(name) for name in total.input}
        if len(shapes) != 1 or len(next(iter(shapes))) != 3 or set(total.input) & set(found.weights):
            continue
        sides, bias = list(total.input), ""
        for place, name in enumerate(sides):
            addition = found.maker(name, "Add")
            joined = found.with_weight(addition) if addition is not None else None
            if joined and joined[1].ndim == 1 and found.only_reader(name, "Add") and found.maker(joined[0], "MatMul"):
                bias = next(other for other in addition.input if other != joined[0]) if addition is not None else ""
                sides = [joined[0], sides[1 - place]]
                break
        attributes = {a.name: helper.get_attribute_value(a) for a in norm.attribute if a.name == "epsilon"}
        norm.CopyFrom(
            helper.make_node(
                "SkipLayerNormalization",
                [*sides, *norm.input[1:3], *([bias] if bias else [])],
                [norm.output[0]],
                domain="com.microsoft",
                **attributes,
            )
        )
        fused += 1
    return fused


def _fuse_one(found: IndexedGraph, softmax: onnx.NodeProto) -> bool:
    product = found.only_reader(softmax.output[0], "MatMul")
    scores = _unmasked(found, softmax.input[0])
    if scores is None or product is None or product.input[0] != softmax.output[0]:
        return False
    scale, before = found.scaled(scores)
    asked = found.maker(before, "MatMul")
    if asked is None:
        return False
    parts = [
        _projection(found, asked.input[0], _HEADS_FIRST),
        _projection(found, asked.input[1], _KEYS),
        _projection(found, product.input[1], _HEADS_FIRST),
    ]
    context = _context(found, product.output[0])
    if context is None or any(part is None for part in parts):
        return False
    query, key, value = (part for part in parts if part is not None)
    scale *= query.factor * key.factor
    if value.factor != 1:
        return False
    if len({(part.heads, part.width) for part in (query, key, value)}) != 1:
        return False
    bias = ""
    if any(part.bias is not None for part in (query, key, value)):
        vectors = [np.zeros(part.width, np.float32) if part.bias is None else part.bias for part in (query, key, value)]
        bias = f"{context.output[0]}/bias"
        found.graph.initializer.append(numpy_helper.from_array(np.concatenate(vectors).astype(np.float32), bias))
    attributes: dict[str, float] = {"mask_filter_value": float(np.finfo(np.float32).min)}
    if not np.isclose(scale, (query.width / query.heads) ** -0.5, rtol=1e-6):
        attributes["scale"] = scale
    context.CopyFrom(
        helper.make_node(
            "MultiHeadAttention",
            [query.name, key.name, value.name, bias, "mask_index"],
            [context.output[0]],
            domain="com.microsoft",
            num_heads=query.heads,
            **attributes,
        )
    )
    return True


def _unmasked(found: IndexedGraph, name: str) -> str | None:
    """Return the scores before a padding mask was added or padding was replaced; None if neither was done."""
    added, chosen = found.maker(name, "Add"), found.maker(name, "Where")
    if added is not None:
        sides = (added.input[:2], added.input[1::-1])
        return next((scores for scores, mask in sides if _is_padding_mask(found, mask)), None)
    if chosen is not None and name in found.values:
        after = found.values[name]
        for scores in chosen.input[1:]:
            before = found.values.get(scores)
            if (
                before is not None
                and before.shape == after.shape
                and _is_padding_mask(found, np.where(after == before, np.float32(0), after)[:, :1])
            ):
                return str(scores)
    return None


def _is_padding_mask(found: IndexedGraph, name: str | npt.NDArray[np.float32]) -> bool:
    """Return whether a mask adds 0 to the scores of real tokens and a large negative number to those of padding."""
    mask = found.values.get(name) if isinstance(name, str) else name
    if mask is None or mask.ndim != 4 or mask.shape[0] != BATCH or mask.shape[1] != 1 or mask.shape[3] != SEQUENCE:
        return False
    real = np.broadcast_to(np.arange(SEQUENCE) < np.array(LENGTHS)[:, None, None, None], mask.shape)
    return bool((mask[real] == 0).all() and (mask[~real] <= MASKED).all())


def _projection(found: IndexedGraph, name: str, order: list[int]) -> _Projection | None:
    """Find the linear layer whose output, split into heads, is this tensor; None if there is none.

    The tensor is [batch, heads, tokens, width], or with its last two axes swapped, as ``order`` requires.
    """
    factor, name = found.scaled(name)
    node = found.maker(name, "Transpose")
    if node is None:
        return None
    turned = list(helper.get_attribute_value(node.attribute[0]))
    inner = found.maker(node.input[0], "Transpose")
    if inner is None and (scaled := found.scaled(node.input[0]))[1] != node.input[0]:
        factor, inner = factor * scaled[0], found.maker(scaled[1], "Transpose")
    if inner is not None:  # first the heads move to the front, then the last two axes are swapped
        first = list(helper.get_attribute_value(inner.attribute[0]))
        turned, node = [first[axis] for axis in turned], inner
    split = found.maker(node.input[0], "Reshape")
    if turned != order or split is None:
        return None
    rows, apart = found.shape(split.input[0]), found.shape(split.output[0])
    if len(rows) != 3 or len(apart) != 4 or rows[:2] != apart[:2]:
        return None
    name, bias = split.input[0], None
    addition = found.maker(name, "Add")
    if addition is not None and (joined := found.with_weight(addition)) and joined[1].ndim == 1:
        name, bias = joined
    if found.maker(name, "MatMul") is None:
        return None
    return _Projection(name, bias, heads=apart[2], width=rows[2], factor=factor)


def _context(found: IndexedGraph, name: str) -> onnx.NodeProto | None:
    """Return the node that joins an attention's heads again; None if there is none."""
    turned = found.only_reader(name, "Transpose")
    if turned is None or list(helper.get_attribute_value(turned.attribute[0])) != _HEADS_FIRST:
        return None
    joined = found.only_reader(turned.output[0], "Reshape")
    shape = found.shape(joined.output[0]) if joined is not None else ()
    return joined if len(shape) == 3 and shape[:2] == (BATCH, SEQUENCE) else None


def _append_mask(graph: onnx.GraphProto) -> None:
    """Add nodes that count each text's real tokens; padding on the right needs no other mask."""
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "mask_index/axes"))
    graph.node.insert(0, helper.make_node("Cast", ["attention_mask"], ["attention_mask_int32"], to=TensorProto.INT32))
    graph.node.insert(
        1,
        helper.make_node("ReduceSum", ["attention_mask_int32", "mask_index/axes"], ["mask_index"], keepdims=0),
    )
