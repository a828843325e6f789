"""Token ids of a whole batch in one line, laid out in rows: truncation, the template's special tokens, padding.

Shapes beside the calls: B texts, T tokens of the whole batch, L ids in the longest row.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from edgeleaf.bundle.session import ROW_LENGTH
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers.spec import TokenizerSpec
from edgeleaf.graph.tokenizers.vocabulary import ROW_START_ID


def append_rows(
    graph: GraphBuilder, tokens: str, spec: TokenizerSpec, max_length: int, *, with_types: bool
) -> tuple[str, ...]:
    """Return input_ids, attention_mask and, if asked for, token_type_ids; int64 [B, L].

    Args:
        graph: the graph to add to.
        tokens: int64 [T]: for every row a marker ``ROW_START_ID``, the template's prefix and the text's tokens; at the
            end one more marker.
        spec: template, padding, side of truncation.
        max_length: tokens a row may have.
        with_types: also return token_type_ids.
    """
    prefix, suffix = len(spec.prefix.ids), len(spec.suffix.ids)
    marks = graph.NonZero(graph.Equal(tokens, np.int64(ROW_START_ID)))  # [1, B+1]
    marks = graph.Reshape(marks, np.array([-1, 1], np.int64))
    begin = graph.Slice(marks, np.array([0]), np.array([-1]), np.array([0]))  # [B, 1]
    end = graph.Slice(marks, np.array([1]), np.array([1 << 62]), np.array([0]))
    room = np.int64(max_length - suffix + 1)  # counting the marker
    whole = graph.alias(graph.Sub(end, begin), ROW_LENGTH)  # [B, 1]: the marker and all tokens before the suffix
    count = graph.Min(whole, room)
    longest = graph.reduce("ReduceMax", count, axes=[0], keepdims=0)  # [1]
    width = longest if suffix == 1 else graph.Add(longest, np.int64(suffix - 1))
    column = graph.Slice(np.arange(1, max_length + 1), np.array([0]), width)  # [L]: 1, 2, ...
    padded = graph.Concat(tokens, np.zeros(max_length + 1, np.int64), axis=0)
    source = graph.Add(begin, column)
    if spec.truncates_left:  # of the text, the last tokens; the prefix stays
        in_text = graph.Cast(graph.Greater(column, np.int64(prefix)), to=TensorProto.INT64)  # [L]
        source = graph.Add(source, graph.Mul(in_text, graph.Sub(whole, count)))
    ids = graph.Gather(padded, source, axis=0)  # [B, L]
    # The text and the prefix stand in the columns before `count`, the suffix from there on.
    places = [count, *(graph.Add(count, np.int64(i)) for i in range(1, suffix))]
    mask = graph.LessOrEqual(column, places[-1]) if suffix else graph.Less(column, count)  # [B, L]
    for place, token_id in zip(places, spec.suffix.ids, strict=False):
        ids = graph.Where(graph.GreaterOrEqual(column, place), np.int64(token_id), ids)
    ids = graph.Where(mask, ids, np.int64(spec.pad_id))
    ones = graph.Cast(mask, to=TensorProto.INT64)
    if not with_types:
        return ids, ones
    types = graph.Where(mask, np.int64(spec.text_type), np.int64(spec.pad_type))
    for i, kind in enumerate(spec.prefix.types):
        if kind != spec.text_type:
            types = graph.Where(graph.Equal(column, np.int64(i + 1)), np.int64(kind), types)
    for place, kind in zip(places, spec.suffix.types, strict=False):
        if kind != spec.text_type:
            types = graph.Where(graph.Equal(column, place), np.int64(kind), types)
    return ids, ones, types
