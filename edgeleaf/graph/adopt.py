"""Convert an existing ONNX encoder to the form that ``fuse`` needs.

Encoders come from optimum, sentence-transformers, torch.onnx or a quantiser. They may or may not take token types; they
may pool inside the graph or return token vectors; they may have an older opset or use half precision. An encoder that
does not fit is refused, and the error names the reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeleaf.errors import ExportError, reason_of
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.fuse import ENCODER_OUTPUT, OLDEST_OPSET, TOKENIZER_OUTPUTS
from edgeleaf.graph.opset import with_opset
from edgeleaf.graph.simplify import prune
from edgeleaf.graph.walk import rename_reads

POOLINGS = ("mean", "cls", "last", "max")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
TOKEN_VECTORS = ("last_hidden_state", "token_embeddings")
"""The names that exporters give to the vectors of the last layer."""
_MASK = "attention_mask"
_LOWEST = np.float32(-3e38)


def load_model(path: Path) -> onnx.ModelProto:
    """Load an .onnx file, including its external data.

    Raises:
        ExportError: there is no such file, it is not an ONNX model, or the model is too large for a single file.
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
        raise ExportError(f"{path}: {size / 1e9:.1f} GB is too large for one ONNX file; quantise it first")
    return model


def adopt(
    model: onnx.ModelProto, *, pooling: str | None = None, output: str | None = None
) -> tuple[onnx.ModelProto, str]:
    """Return an encoder whose only output is ``sentence_embedding``, float32 [batch, width].

    Args:
        model: an encoder whose inputs have the names that transformers uses: ``input_ids``, ``attention_mask`` and
            optionally ``token_type_ids``, int64 or int32 [batch, sequence]. It has an output [batch, width], or token
            vectors [batch, sequence, width].
        pooling: how to pool token vectors: ``mean``, ``cls``, ``last`` or ``max`` over the attention mask; None if the
            graph already pools.
        output: the name of the output to use; None selects it automatically if only one is possible.

    Returns:
        The encoder, and the name of the output that was used.

    Raises:
        ExportError: the inputs are different ones, no output fits, or the pooling is missing, not needed or unknown.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise ExportError(f"pooling {pooling!r} is not known; pass one of {', '.join(POOLINGS)}")
    adopted = onnx.ModelProto()
    adopted.CopyFrom(model)
    adopted = with_opset(adopted, OLDEST_OPSET)
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
        raise ExportError(f"the encoder is not a valid ONNX model: {reason_of(reason)}") from None
    return adopted, name


def _check_inputs(model: onnx.ModelProto) -> None:
    """Refuse inputs that the tokenizer does not provide; add a cast inside the graph for 32-bit inputs."""
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
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        reason = " ".join(str(error).split())
        raise ExportError(
            f"onnxruntime cannot run the encoder on two texts of three tokens: {reason_of(reason)}"
        ) from None
    return {name: value.shape for name, value in zip(names, values, strict=True)}


def _choose_output(shapes: dict[str, tuple[int, ...]], pooling: str | None, asked: str | None) -> tuple[str, int]:
    """Return the output that becomes the embedding, and its width."""
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
                f"the encoder gives token vectors ({listed}, of two texts); choose how they are pooled: "
                f"--pooling {', '.join(POOLINGS)}"
            )
        if pooled:
            raise ExportError(f"the encoder's outputs are {listed}; choose one: --encoder-output NAME")
        raise ExportError(f"the encoder's outputs are {listed}; needed: {ENCODER_OUTPUT}, or one [batch, width]")
    if not tokens:
        raise ExportError(f"the encoder's outputs are {listed}: no token vectors to pool; leave --pooling out")
    name = next((name for name in TOKEN_VECTORS if name in tokens), tokens[0] if len(tokens) == 1 else None)
    name = name or _last_layer(tokens)
    if name is None:
        raise ExportError(
            f"the encoder gives several token vectors ({listed}, of two texts); choose one: --encoder-output NAME"
        )
    return name, shapes[name][2]


def _last_layer(names: list[str]) -> str | None:
    """Return the last of the outputs that number a model's layers, such as ``hidden_states.0`` to ``hidden_states.6``.

    None if the outputs are not a complete numbered series.
    """
    numbered = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    stems = {match[1] for match in numbered if match}
    if not all(numbered) or len(stems) != 1:
        return None
    numbers = {int(match[2]): name for match, name in zip(numbered, names, strict=True) if match}
    complete = len(numbers) == len(names) and max(numbers) - min(numbers) == len(names) - 1
    return numbers[max(numbers)] if complete else None


def _make_output(model: onnx.ModelProto, name: str, pooling: str | None, width: int) -> None:
    """Append pooling and a cast to the chosen output, so that ``sentence_embedding`` is the graph's only output."""
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    tail = GraphBuilder("pooling", opset=opset)
    kind = next(o.type.tensor_type.elem_type for o in model.graph.output if o.name == name)
    source = name
    if name == ENCODER_OUTPUT:  # the appended nodes need this name for their own output
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
    """Pool token vectors [batch, sequence, width] to [batch, width] as sentence-transformers does."""
    if pooling is None:
        return graph.Identity(vectors)
    if pooling == "cls":
        return graph.Gather(vectors, np.int64(0), axis=1)
    if pooling == "last":
        # The last real token; padding is on the right.
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
