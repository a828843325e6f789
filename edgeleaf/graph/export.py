"""A sentence-transformers model to one ONNX graph: encoder, pooling, projection and L2 norm, optimised and validated.

An exporter (:mod:`edgeleaf.graph.exporters`) writes the graph, patterns of nodes are fused (attention stays apart from
its projections, so that the quantiser sees every weight), and a ladder of checks compares the result with torch: names,
axes, shapes, values.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeleaf.bundle.session import session
from edgeleaf.errors import AxesMismatch, ExportError, NamesMismatch, ShapesMismatch, ValuesMismatch
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.exporters import EXPORTERS, INPUTS, OUTPUT, TokenTypes, token_types
from edgeleaf.graph.simplify import prune, simplify

MAX_DIFFERENCE = 1e-4
"""Largest difference of any number of a unit vector between torch and ONNX Runtime, both float32."""


def export_onnx(folder: Path, *, exporter: str = next(iter(EXPORTERS))) -> onnx.ModelProto:
    """Export the sentence-transformers model in ``folder``.

    Args:
        folder: a local folder.
        exporter: a name in :data:`edgeleaf.graph.exporters.EXPORTERS`.

    Returns:
        A model with inputs ``input_ids`` and ``attention_mask`` (int64 [batch, sequence], padded on the right) and the
        output ``sentence_embedding`` (float32 [batch, dim], unit L2 norm, if the model ends in Normalize).

    Raises:
        ExportError: no such exporter, or it or the optimiser cannot handle the model.
        MissingExtra: the exporter is not installed.
    """
    if exporter not in EXPORTERS:
        raise ExportError(f"exporter is {exporter!r}; allowed: {', '.join(EXPORTERS)}")
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        raw = EXPORTERS[exporter](folder, Path(scratch))
        return _tidy(_fuse_patterns(raw), token_types(folder))


def validate(model: onnx.ModelProto, torch_model: Any, texts: Sequence[str]) -> float:
    """Climb the ladder: names, axes, shapes, values against torch.

    Args:
        model: what :func:`export_onnx` returned.
        torch_model: the same sentence-transformers model, loaded.
        texts: real texts of several lengths; each is run alone, and all in one batch.

    Returns:
        The largest difference of any number between ONNX Runtime and torch.

    Raises:
        NamesMismatch, AxesMismatch, ShapesMismatch, ValuesMismatch: the first rung that breaks.
    """
    _check_ends(model)
    opened = session(model.SerializeToString(), threads=0)
    worst = 0.0
    for batch in [[text] for text in texts] + [list(texts)]:
        expected = _torch_vectors(torch_model, batch)
        found = opened.run([OUTPUT], features(torch_model, batch))[0]
        if found.shape != expected.shape:
            raise ShapesMismatch(f"{len(batch)} texts give {found.shape} in ONNX Runtime, {expected.shape} in torch")
        difference = float(np.abs(found - expected).max())
        if not difference <= MAX_DIFFERENCE:
            raise ValuesMismatch(
                f"{batch[0][:60]!r} (batch of {len(batch)}): ONNX Runtime and torch differ by {difference:.2g}; "
                f"{MAX_DIFFERENCE:g} is allowed"
            )
        worst = max(worst, difference)
    return worst


def features(torch_model: Any, texts: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    """Tokenise as sentence-transformers does: ``input_ids`` and ``attention_mask``, int64 [len(texts), sequence]."""
    preprocess = getattr(torch_model, "preprocess", None) or torch_model.tokenize
    encoded = preprocess(list(texts))
    return {name: encoded[name].cpu().numpy().astype(np.int64) for name in INPUTS}


def _torch_vectors(torch_model: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return np.asarray(torch_model.encode(list(texts), batch_size=len(texts), show_progress_bar=False), np.float32)


def _fuse_patterns(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fuse LayerNorm, GELU and attention; embeddings and MatMuls stay, for the quantiser."""
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_by_fusion

    options = FusionOptions("bert")
    options.use_multi_head_attention = True
    options.enable_embed_layer_norm = False
    fused = optimize_by_fusion(model, model_type="bert", optimization_options=options).model
    if all(opset.domain != "com.microsoft" for opset in fused.opset_import):
        fused.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return fused


def _tidy(model: onnx.ModelProto, types: TokenTypes | None) -> onnx.ModelProto:
    """Keep the one output, drop what only the others needed, name the axes."""
    graph = model.graph
    outputs = [output for output in graph.output if output.name == OUTPUT]
    if not outputs:
        raise ExportError(f"the exported graph has no {OUTPUT}; it has {', '.join(o.name for o in graph.output)}")
    _fix_token_types(graph, types)
    del graph.output[:]
    graph.output.extend(outputs)
    prune(model)
    simplify(model)
    prune(model)
    for value in graph.input:
        _name_axes(value, ("batch", "sequence"))
    shape = graph.output[0].type.tensor_type.shape
    dim = next((d.dim_value for d in shape.dim[1:] if d.dim_value), _width(model))
    _name_axes(graph.output[0], ("batch", dim))
    del graph.value_info[:]
    model.producer_name, model.producer_version = "edgeleaf", ""
    onnx.checker.check_model(model)
    return model


def _fix_token_types(graph: onnx.GraphProto, types: TokenTypes | None) -> None:
    """Compute ``token_type_ids`` in the graph: a token's place in its row decides, as the tokenizer's template has it.

    Without types that count, a model that asks for them gets zeros: a query is one segment.
    """
    if "token_type_ids" not in {value.name for value in graph.input}:
        if types is not None:
            raise ExportError("the tokenizer's template gives token types, which the exported graph does not ask for")
        return
    inputs = [value for value in graph.input if value.name != "token_type_ids"]
    del graph.input[:]
    graph.input.extend(inputs)
    builder = GraphBuilder("types")
    if types is None:
        made = builder.Sub("input_ids", "input_ids")
    else:
        mask = builder.Cast("attention_mask", to=onnx.TensorProto.INT64)  # [batch, sequence]
        place = builder.Sub(builder.CumSum(mask, np.int64(1)), mask)  # 0, 1, ... for the tokens of a row
        left = builder.Sub(builder.ReduceSum(mask, np.array([1], np.int64), keepdims=1), place)  # ..., 2, 1
        made = builder.Mul(mask, np.int64(types.text))
        for at, kind in enumerate(types.prefix):
            made = builder.Where(builder.Equal(place, np.int64(at)), np.int64(kind), made)
        for at, kind in enumerate(reversed(types.suffix), start=1):
            made = builder.Where(builder.Equal(left, np.int64(at)), np.int64(kind), made)
    builder.alias(made, "token_type_ids")
    graph.initializer.extend(builder.initializers.values())
    for at, node in enumerate(builder.nodes):
        graph.node.insert(at, node)


def _width(model: onnx.ModelProto) -> int:
    """The output's width, found by running the graph once on two tokens."""
    opened = session(model.SerializeToString(), threads=0)
    two = np.ones((1, 2), dtype=np.int64)
    return int(opened.run([OUTPUT], dict.fromkeys(INPUTS, two))[0].shape[1])


def _name_axes(value: onnx.ValueInfoProto, axes: Sequence[str | int]) -> None:
    shape = onnx.helper.make_tensor_value_info("", onnx.TensorProto.FLOAT, list(axes)).type.tensor_type.shape
    value.type.tensor_type.shape.CopyFrom(shape)


def _check_ends(model: onnx.ModelProto) -> None:
    names = tuple(value.name for value in model.graph.input), tuple(value.name for value in model.graph.output)
    if sorted(names[0]) != sorted(INPUTS) or names[1] != (OUTPUT,):
        raise NamesMismatch(f"the graph goes {names[0]} to {names[1]}; {INPUTS} to {(OUTPUT,)} is needed")
    for value in (*model.graph.input, *model.graph.output):
        free = [bool(dim.dim_param) for dim in value.type.tensor_type.shape.dim]
        if free != ([True, False] if value.name == OUTPUT else [True, True]):
            raise AxesMismatch(
                f"{value.name} has free axes {free}; the batch, and the sequence of inputs, must be free"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' warnings off the user's terminal, and off standard output; errors still raise."""
    names = (
        "torch.onnx",
        "onnxscript",
        "optimum",
        "optimum.exporters.onnx",
        "transformers",
        "onnxruntime",
        "onnxruntime.transformers",
        "fusion_base",
        "onnx_model",
    )
    levels = {name: logging.getLogger(name).level for name in names}
    root = logging.getLogger().level
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger().setLevel(logging.ERROR)
        # onnxruntime's optimiser prints where its shape inference gives up.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().setLevel(root)
