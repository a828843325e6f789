"""Encoders that look tokens up in a table, as other exporters would have written them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.fuse import fuse
from tests.graph.tokenizers.pairs import TRAINING, Pair

WIDTH, IDS = 6, 3000
TABLE = np.random.default_rng(0).standard_normal((IDS, WIDTH)).astype(np.float32)
TYPES = np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)
TEXTS = [*TRAINING, "my parcel", ""]


def make_encoder(
    *,
    opset: int = 17,
    output: str = "last_hidden_state",
    pooled: bool = False,
    elem_type: int = TensorProto.FLOAT,
    input_type: int = TensorProto.INT64,
    types: bool = False,
    contrib: bool = False,
    extra: str | None = None,
) -> onnx.ModelProto:
    """Token vectors of a table, plus those of token types; ``pooled``: their mean over the mask."""
    graph = GraphBuilder("encoder", opset=opset)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else []), *([extra] if extra else [])]
    for name in names:
        graph.input(name, input_type, ["batch", "sequence"])
    vectors = graph.Gather(TABLE, "input_ids", axis=0)
    if types:
        vectors = graph.Add(vectors, graph.Gather(TYPES, "token_type_ids", axis=0))
    if contrib:
        vectors = graph.node("Gelu", vectors, domain="com.microsoft")[0]
    axes: list[str | int] = ["batch", "sequence", WIDTH]
    if pooled:
        mask = graph.Cast("attention_mask", to=TensorProto.FLOAT)
        weights = graph.Reshape(mask, np.array([0, 0, 1]))  # Unsqueeze and ReduceSum change with opset 13
        summed = graph.MatMul(graph.Transpose(weights, perm=[0, 2, 1]), vectors)  # [batch, 1, width]
        count = graph.MatMul(graph.Transpose(weights, perm=[0, 2, 1]), weights)
        vectors = graph.Reshape(graph.Div(summed, count), np.array([0, WIDTH]))
        axes = ["batch", WIDTH]
    if elem_type != TensorProto.FLOAT:
        vectors = graph.Cast(vectors, to=elem_type)
    graph.output(graph.Identity(vectors), output, elem_type, axes)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("com.microsoft", 1)] if contrib else [])]
    model = helper.make_model(graph.graph(), opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model


def embed(encoder: onnx.ModelProto, tokenizer: dict[str, Any]) -> np.ndarray:
    model = fuse(encoder, tokenizer, max_length=32, metadata={})
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    vectors: np.ndarray = session.run(["embedding"], {"text": np.array(TEXTS, dtype=object)})[0]
    return vectors


def expected(tokenizer: dict[str, Any], pooling: str, *, types: bool = False) -> np.ndarray:
    rows = []
    for encoding in Pair(tokenizer, max_length=32).reference.encode_batch(TEXTS):
        vectors = TABLE[encoding.ids] + (TYPES[encoding.type_ids] if types else 0)
        pooled = {"mean": vectors.mean(0), "cls": vectors[0], "last": vectors[-1], "max": vectors.max(0)}[pooling]
        rows.append(pooled / np.linalg.norm(pooled))
    return np.array(rows)
