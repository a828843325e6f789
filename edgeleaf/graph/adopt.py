"""Bring an ONNX encoder that someone already has into the form that ``fuse`` wants.

Encoders come from optimum, sentence-transformers, torch.onnx or a quantiser: with token types or without, with the
pooling inside or token vectors outside, of older opsets, in half precision. What is not understood is refused by name.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeleaf.errors import ExportError, reason_of
from edgeleaf.graph.builder import OPSET, GraphBuilder
from edgeleaf.graph.fuse import ENCODER_OUTPUT, OLDEST_OPSET, TOKENIZER_OUTPUTS
from edgeleaf.graph.simplify import prune
from edgeleaf.graph.walk import rename_reads

POOLINGS = ("mean", "cls", "last", "max")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
TOKEN_VECTORS = ("last_hidden_state", "token_embeddings")
"""Names by which exporters call the vectors of the last layer."""
_MASK = "attention_mask"
_LOWEST = np.float32(-3e38)


def load_model(path: Path) -> onnx.ModelProto:
    """Load an .onnx file, its external data included.

    Raises:
        ExportError: no such file, not an ONNX model, or one too large for a single file.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such file; an .onnx file is needed")
    try:
        model = onnx.load(str(path), format="protobuf")
        size = model.ByteSize()
    except Exception as error:  # protobuf, onnx and the file system all raise their own
        reason = " ".join(str(error).split())
        raise ExportError(f"{path}: not an ONNX model that can be read ({reason_of(reason)})") from None
    if not model.graph.node:
        raise ExportError(f"{path}: not an ONNX model; it holds no graph")
    if size >= 1 << 31:
        raise ExportError(f"{path}: {size / 1e9:.1f} GB do not fit into one ONNX file; quantise it first")
    return model


def adopt(
    model: onnx.ModelProto, *, pooling: str | None = None, output: str | None = None
) -> tuple[onnx.ModelProto, str]:
    """Return an encoder with ``sentence_embedding`` as its one output, float32 [batch, width].

    Args:
        model: inputs named as transformers names them, ``input_ids``, ``attention_mask`` and maybe
            ``token_type_ids``, int64 or int32 [batch, sequence]; an output [batch, width], or token vectors
            [batch, sequence, width].
        pooling: how to pool token vectors: ``mean``, ``cls``, ``last`` or ``max`` over the attention mask; None if the
            pooling is inside already.
        output: the output to take, by name; None chooses, where there is one choice.

    Returns:
        The encoder, and the name of the output that was taken.

    Raises:
        ExportError: other inputs, no output that fits, or a pooling that is missing, not needed or unknown.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise ExportError(f"pooling {pooling!r} is not known; pass one of {', '.join(POOLINGS)}")
    adopted = onnx.ModelProto()
    adopted.CopyFrom(model)
    adopted = _raise_opset(adopted)
    _check_inputs(adopted)
    ranks = _run_once(adopted)
    name, width = _choose_output(ranks, pooling, output)
    _make_output(adopted, name, pooling, width)
    prune(adopted)
    adopted.graph.name = adopted.graph.name or "encoder"
    try:
        onnx.checker.check_model(adopted)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"the encoder is no valid ONNX model: {reason_of(reason)}") from None
    return adopted, name


def _raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model older than the tokenizer's operators; the others stay as they are."""
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version >= OLDEST_OPSET:
        return model
    from onnx import version_converter

    contrib = [opset for opset in model.opset_import if opset.domain not in ("", "ai.onnx")]
    try:
        converted = version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError
        reason = " ".join(str(error).split())
        raise ExportError(
            f"the encoder has opset {version}, the tokenizer needs {OLDEST_OPSET}, and onnx cannot convert it: "
            f"{reason_of(reason)}; export it again with opset {OPSET}"
        ) from None
    known = {opset.domain for opset in converted.opset_import}
    converted.opset_import.extend(opset for opset in contrib if opset.domain not in known)
    return converted


def _check_inputs(model: onnx.ModelProto) -> None:
    """Refuse other inputs than the tokenizer's; 32-bit ones are cast inside."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    unknown = [name for name in names if name not in TOKENIZER_OUTPUTS]
    if unknown or not {"input_ids", _MASK} <= set(names):
        raise ExportError(
            f"the encoder's inputs are {', '.join(names)}; needed: input_ids, attention_mask, maybe token_type_ids"
        )
    for value in inputs:
        kind = value.type.tensor_type.elem_type
        if kind == TensorProto.INT32:
            narrow = f"{value.name}/int32"
            for node in model.graph.node:
                rename_reads(node, {value.name: narrow})
            cast = helper.make_node("Cast", [value.name], [narrow], name=narrow, to=TensorProto.INT32)
            model.graph.node.insert(0, cast)
            value.type.tensor_type.elem_type = TensorProto.INT64
        elif kind != TensorProto.INT64:
            raise ExportError(
                f"the encoder's input {value.name} is {TensorProto.DataType.Name(kind)}; needed: INT64 or INT32"
            )


def _run_once(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Run the encoder on two texts of three tokens; return the shapes of its floating-point outputs, by name."""
    from edgeleaf.bundle.session import session

    try:
        opened = session(model.SerializeToString(), threads=1)
        three = np.ones((2, 3), np.int64)
        names = [output.name for output in opened.get_outputs() if "float" in output.type or "double" in output.type]
        values = opened.run(names, {entry.name: three for entry in opened.get_inputs()})
    except Exception as error:  # onnxruntime raises many kinds without a common base below Exception
        reason = " ".join(str(error).split())
        raise ExportError(
            f"onnxruntime cannot run the encoder on two texts of three tokens: {reason_of(reason)}"
        ) from None
    return {name: value.shape for name, value in zip(names, values, strict=True)}


def _choose_output(shapes: dict[str, tuple[int, ...]], pooling: str | None, asked: str | None) -> tuple[str, int]:
    """The output that becomes the embedding, and its width."""
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none in floating point"
    pooled = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == 2]
    tokens = [name for name, shape in shapes.items() if len(shape) == 3 and shape[:2] == (2, 3)]
    if asked is not None:
        if asked not in (tokens if pooling else pooled):
            kind = "token vectors to pool" if pooling else "one vector per text"
            raise ExportError(f"the encoder's output {asked!r} does not give {kind}; its outputs are {listed}")
        return asked, shapes[asked][-1]
    if pooling is None:
        if ENCODER_OUTPUT in pooled:
            return ENCODER_OUTPUT, shapes[ENCODER_OUTPUT][1]
        if len(pooled) == 1 and not tokens:
            return pooled[0], shapes[pooled[0]][1]
        if tokens:
            raise ExportError(
                f"the encoder gives token vectors ({listed}, of two texts); say how they are pooled: "
                f"--pooling {', '.join(POOLINGS)}"
            )
        if pooled:
            raise ExportError(f"the encoder's outputs are {listed}; say which one to take: --encoder-output NAME")
        raise ExportError(f"the encoder's outputs are {listed}; needed: {ENCODER_OUTPUT}, or one [batch, width]")
    if not tokens:
        raise ExportError(f"the encoder's outputs are {listed}: no token vectors to pool; leave --pooling out")
    name = next((name for name in TOKEN_VECTORS if name in tokens), tokens[0] if len(tokens) == 1 else None)
    name = name or _last_layer(tokens)
    if name is None:
        raise ExportError(
            f"the encoder gives several token vectors ({listed}, of two texts); say which: --encoder-output NAME"
        )
    return name, shapes[name][2]


def _last_layer(names: list[str]) -> str | None:
    """The last of outputs that count a model's layers, such as ``hidden_states.0`` to ``hidden_states.6``."""
    numbered = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    stems = {match[1] for match in numbered if match}
    if not all(numbered) or len(stems) != 1:
        return None
    numbers = {int(match[2]): name for match, name in zip(numbered, names, strict=True) if match}
    complete = len(numbers) == len(names) and max(numbers) - min(numbers) == len(names) - 1
    return numbers[max(numbers)] if complete else None


def _make_output(model: onnx.ModelProto, name: str, pooling: str | None, width: int) -> None:
    """Put pooling and a cast behind the chosen output, and leave ``sentence_embedding`` alone at the end."""
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    tail = GraphBuilder("pooling", opset=opset)
    kind = next(o.type.tensor_type.elem_type for o in model.graph.output if o.name == name)
    source = name
    if name == ENCODER_OUTPUT:  # the name is needed behind the tail
        source = f"{name}/before"
        while any(source in node.output for node in model.graph.node):
            source += "_"
        for node in model.graph.node:
            node.output[:] = [source if made == name else made for made in node.output]
            rename_reads(node, {name: source})
    vectors = source if kind == TensorProto.FLOAT else tail.Cast(source, to=TensorProto.FLOAT)
    tail.alias(_pool(tail, vectors, pooling), ENCODER_OUTPUT)
    model.graph.node.extend(tail.nodes)
    model.graph.initializer.extend(tail.initializers.values())
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(ENCODER_OUTPUT, TensorProto.FLOAT, ["batch", width]))


def _pool(graph: GraphBuilder, vectors: str, pooling: str | None) -> str:
    """Token vectors [batch, sequence, width] to [batch, width], as sentence-transformers pools."""
    if pooling is None:
        return graph.Identity(vectors)
    if pooling == "cls":
        return graph.Gather(vectors, np.int64(0), axis=1)
    if pooling == "last":
        # The last token that counts; padding is on the right.
        last = graph.Sub(graph.ReduceSum(_MASK, np.array([1]), keepdims=1), np.int64(1))  # [batch, 1]
        places = graph.Unsqueeze(last, np.array([2]))  # [batch, 1, 1]
        shape = graph.Concat(graph.Shape(last), graph.Slice(graph.Shape(vectors), np.array([2]), np.array([3])), axis=0)
        found = graph.GatherElements(vectors, graph.Expand(places, shape), axis=1)  # [batch, 1, width]
        return graph.Squeeze(found, np.array([1]))
    mask = graph.Unsqueeze(graph.Cast(_MASK, to=TensorProto.FLOAT), np.array([2]))  # [batch, sequence, 1]
    if pooling == "max":
        masked = graph.Where(graph.Cast(mask, to=TensorProto.BOOL), vectors, _LOWEST)
        return graph.reduce("ReduceMax", masked, axes=[1], keepdims=0)
    total = graph.ReduceSum(graph.Mul(vectors, mask), np.array([1]), keepdims=0)  # [batch, width]
    count = graph.Max(graph.ReduceSum(mask, np.array([1]), keepdims=0), np.float32(1e-9))  # [batch, 1]
    return graph.Div(total, count)
