"""A fused encoder in miniature, for tests that need a file and no model."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import onnx

from edgeleaf.bundle.manifest import VectorSpace

WORDS = ["[PAD]", "[UNK]", "red", "green", "blue", "one", "two", "three"]
DIM = 4
SPACE = VectorSpace("tiny", None, "0" * 64, "mean", True, "", "", DIM)


def tiny_fused(table: np.ndarray) -> onnx.ModelProto:
    """A fused encoder in miniature: words split at spaces, looked up in ``table`` [words, dim], summed, normalised."""
    from onnx import TensorProto

    from edgeleaf.graph.builder import GraphBuilder

    g = GraphBuilder("tiny")
    text = g.input("text", TensorProto.STRING, ["batch"])
    words = g.Tokenizer(text, mark=0, mincharnum=1, pad_value="[PAD]", separators=[" "])
    ids = g.LabelEncoder(words, keys_strings=WORDS, values_int64s=list(range(len(WORDS))), default_int64=1)
    ids = g.alias(ids, "input_ids")
    real = g.Cast(g.Not(g.Equal(ids, np.int64(0))), to=TensorProto.INT64)
    mask = g.Cast(g.alias(real, "attention_mask"), to=TensorProto.FLOAT)
    rows = g.Mul(g.Gather(table.astype(np.float32), ids), g.Unsqueeze(mask, np.array([2])))
    total = g.Add(g.ReduceSum(rows, np.array([1]), keepdims=0), np.float32(1e-3))
    norm = g.Sqrt(g.ReduceSum(g.Mul(total, total), np.array([1]), keepdims=1))
    g.output(g.Div(total, norm), "embedding", TensorProto.FLOAT, ["batch", table.shape[1]])
    model = g.model()
    onnx.helper.set_model_props(model, {"edgeleaf.space": json.dumps(asdict(SPACE)), "edgeleaf.schema_version": "1"})
    return model
