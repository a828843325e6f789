"""Export a sentence-transformers model to one optimised ONNX graph and compare it with torch.

The graph holds encoder, pooling, projection and L2 norm. An exporter (:mod:`edgeleaf.graph.exporters`) writes it, then
patterns of nodes are fused. Attention stays apart from its projections, so that the quantiser sees every weight. A
series of checks then compares the result with torch: names, axes, shapes, values.
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
from edgeleaf.graph.exporters import EXPORTERS, INPUTS, OUTPUT
from edgeleaf.graph.patterns import fuse_attention, fuse_skip_norms
from edgeleaf.graph.simplify import drop_copies, name_constants, prune, share_sizes, simplify

MAX_DIFFERENCE = 1e-4
"""Largest difference allowed in any number of a unit vector between torch and ONNX Runtime, both in float32."""


def export_onnx(folder: Path, *, exporter: str = next(iter(EXPORTERS))) -> onnx.ModelProto:
    """Export the sentence-transformers model in ``folder``.

    Args:
        folder: a local folder.
        exporter: a name in :data:`edgeleaf.graph.exporters.EXPORTERS`.

    Returns:
        A model with the inputs ``input_ids`` and ``attention_mask`` (int64 [batch, sequence], padded on the right) and
        the output ``sentence_embedding`` (float32 [batch, dim], with unit L2 norm if the model ends in Normalize).

    Raises:
        ExportError: there is no such exporter, or the exporter or the optimiser cannot handle the model.
        MissingExtra: the exporter is not installed.
    """
    if exporter not in EXPORTERS:
        raise ExportError(f"exporter is {exporter!r}; allowed: {', '.join(EXPORTERS)}")
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        raw = EXPORTERS[exporter](folder, Path(scratch))
        return _tidy(_fuse_patterns(raw))


def validate(model: onnx.ModelProto, torch_model: Any, texts: Sequence[str]) -> float:
    """Check an exported graph step by step: names, axes, then shapes and values compared with torch.

    Args:
        model: what :func:`export_onnx` returned.
        torch_model: the same sentence-transformers model, loaded.
        texts: real texts of several lengths; each is run alone, then all are run in one batch.

    Returns:
        The largest difference between ONNX Runtime and torch in any number.

    Raises:
        NamesMismatch, AxesMismatch, ShapesMismatch, ValuesMismatch: the first check that fails.
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
    """Tokenise as sentence-transformers does; return ``input_ids`` and ``attention_mask``, int64 [texts, sequence]."""
    preprocess = getattr(torch_model, "preprocess", None) or torch_model.tokenize
    encoded = preprocess(list(texts))
    return {name: encoded[name].cpu().numpy().astype(np.int64) for name in INPUTS}


def _torch_vectors(torch_model: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return np.asarray(torch_model.encode(list(texts), batch_size=len(texts), show_progress_bar=False), np.float32)


def _fuse_patterns(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fuse attention, LayerNorm and GELU; keep embeddings and MatMuls separate for the quantiser."""
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_by_fusion

    name_constants(model)
    share_sizes(model)
    drop_copies(model)  # equal weights are stored once; behind a copy, a layer's bias is not found
    prune(model)
    fuse_attention(model)
    prune(model)
    fuse_skip_norms(model)
    prune(model)
    options = FusionOptions("bert")
    options.use_multi_head_attention = True
    options.enable_embed_layer_norm = False
    options.enable_layer_norm = False  # both exporters write it as one node; for RMSNorm, ONNX's checker knows no node
    fused = optimize_by_fusion(model, model_type="bert", optimization_options=options).model
    if all(opset.domain != "com.microsoft" for opset in fused.opset_import):
        fused.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return fused


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep the embedding as the only output, drop the nodes that only other outputs needed, and name the axes."""
    graph = model.graph
    outputs = [output for output in graph.output if output.name == OUTPUT]
    if not outputs:
        raise ExportError(f"the exported graph has no {OUTPUT}; it has {', '.join(o.name for o in graph.output)}")
    _fix_token_types(graph)
    del graph.output[:]
    graph.output.extend(outputs)
    del graph.value_info[:]  # wrong once nodes are left out, and onnxruntime 1.20 plans its memory by it
    prune(model)
    simplify(model)
    prune(model)
    for value in graph.input:
        _name_axes(value, ("batch", "sequence"))
    shape = graph.output[0].type.tensor_type.shape
    dim = next((d.dim_value for d in shape.dim[1:] if d.dim_value), _width(model))
    _name_axes(graph.output[0], ("batch", dim))
    model.producer_name, model.producer_version = "edgeleaf", ""
    onnx.checker.check_model(model)
    return model


def _fix_token_types(graph: onnx.GraphProto) -> None:
    """Replace an input ``token_type_ids`` by zeros made inside the graph; types of a template are inside already."""
    if "token_type_ids" not in {value.name for value in graph.input}:
        return
    inputs = [value for value in graph.input if value.name != "token_type_ids"]
    del graph.input[:]
    graph.input.extend(inputs)
    builder = GraphBuilder("types")
    builder.alias(builder.Sub("input_ids", "input_ids"), "token_type_ids")
    graph.initializer.extend(builder.initializers.values())
    for at, node in enumerate(builder.nodes):
        graph.node.insert(at, node)


def _width(model: onnx.ModelProto) -> int:
    """Find the output's width by running the graph once on two tokens."""
    opened = session(model.SerializeToString(), threads=0)
    two = np.ones((1, 2), dtype=np.int64)
    return int(opened.run([OUTPUT], dict.fromkeys(INPUTS, two))[0].shape[1])


def _name_axes(value: onnx.ValueInfoProto, axes: Sequence[str | int]) -> None:
    shape = onnx.helper.make_tensor_value_info("", onnx.TensorProto.FLOAT, list(axes)).type.tensor_type.shape
    value.type.tensor_type.shape.CopyFrom(shape)


def _check_ends(model: onnx.ModelProto) -> None:
    names = tuple(value.name for value in model.graph.input), tuple(value.name for value in model.graph.output)
    if sorted(names[0]) != sorted(INPUTS) or names[1] != (OUTPUT,):
        raise NamesMismatch(f"the graph maps {names[0]} to {names[1]}; it must map {INPUTS} to {(OUTPUT,)}")
    for value in (*model.graph.input, *model.graph.output):
        free = [bool(dim.dim_param) for dim in value.type.tensor_type.shape.dim]
        if free != ([True, False] if value.name == OUTPUT else [True, True]):
            raise AxesMismatch(
                f"{value.name} has free axes {free}; the batch axis, and the inputs' sequence axis, must be free"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' warnings and messages off the terminal and standard output; errors are still raised."""
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
        # onnxruntime's optimiser prints a message when its shape inference gives up.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().setLevel(root)
