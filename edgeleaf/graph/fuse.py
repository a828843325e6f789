"""Tokenizer and encoder in one graph: strings or their UTF-8 in, unit vectors out.

The tokenizer's outputs bear the names of the encoder's inputs, ``input_ids`` and ``attention_mask``, so that joining
the two is a matter of putting the node lists one after the other; ``tap`` brings those inner tensors to the light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeleaf.bundle.feed import INPUTS, TEXT, Input
from edgeleaf.bundle.long_texts import METADATA_LONG_TEXTS
from edgeleaf.errors import ExportError
from edgeleaf.graph.builder import IR_VERSION, OPSET, GraphBuilder
from edgeleaf.graph.opset import with_opset
from edgeleaf.graph.positions import within_window
from edgeleaf.graph.simplify import prune
from edgeleaf.graph.tokenizers import append_input, append_tokenizer, opset_of
from edgeleaf.graph.walk import rename_tensors, tensor_names

EMBEDDING = "embedding"
ENCODER_INPUTS = ("input_ids", "attention_mask")
TOKENIZER_OUTPUTS = (*ENCODER_INPUTS, "token_type_ids")
ENCODER_OUTPUT = "sentence_embedding"
OLDEST_OPSET = 16  # ScatterElements that adds
_TOKENIZER, _TAIL = "tokenizer", "unit_norm"
_SMALLEST_NORM = np.float64(1e-12)


def fuse(
    encoder: onnx.ModelProto,
    tokenizer_json: str | dict[str, Any],
    *,
    max_length: int,
    prompt: str = "",
    dim: int | None = None,
    metadata: Mapping[str, str],
    takes: Input = TEXT,
) -> onnx.ModelProto:
    """Put the tokenizer in front of an encoder, and a unit norm behind it.

    Args:
        encoder: inputs ``input_ids``, ``attention_mask`` and maybe ``token_type_ids``, int64 [batch, sequence]; output
            ``sentence_embedding``, float32 [batch, width]. Left as it is; ``adopt`` brings others into this form.
        tokenizer_json: the text of a tokenizer.json, or the parsed dict.
        max_length: tokens a text may have, special tokens included.
        prompt: put before every text.
        dim: keep the first ``dim`` numbers of the embedding (Matryoshka); None keeps them all.
        metadata: the model's metadata_props, on top of the encoder's own.
        takes: the input: ``text``, or ``utf8`` for bindings that have no exact strings.

    Returns:
        A model with input ``text``, string [batch], or ``utf8``, uint8 [batch, bytes], short texts filled up on the
        right with 0xFF; and output ``embedding``, float32 [batch, dim], unit L2 norm. The
        same arguments give the same bytes.

    Raises:
        TokenizerNotSupported: the tokenizer cannot be reproduced exactly.
        ExportError: the encoder's inputs or output are other ones, its opset is too old, or ``dim`` is out of range.

    Example:
        >>> model = fuse(onnx.load("onnx/model.onnx"), Path("tokenizer.json").read_text(), max_length=128, metadata={})
        >>> onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"text": ["where is my parcel?"]})
    """
    width, with_types = _check(encoder)
    encoder = _out_of_the_way(with_opset(encoder, opset_of(tokenizer_json)))
    if dim is not None and not 1 <= dim <= width:
        raise ExportError(f"dim {dim} is out of range: the encoder's embedding has {width} numbers; pass 1 to {width}")
    opsets = {"" if opset.domain == "ai.onnx" else opset.domain: opset.version for opset in encoder.opset_import}
    front = GraphBuilder(_TOKENIZER, opset=opsets[""])
    texts = append_input(front, takes)
    append_tokenizer(
        front,
        _at_least_one(front) if takes == TEXT else texts,
        tokenizer_json,
        max_length=max_length,
        prompt=prompt,
        token_type_ids=with_types,
        takes=takes,
    )
    tail = GraphBuilder(_TAIL, opset=opsets[""])
    unit = _append_norm(tail, ENCODER_OUTPUT, dim if dim is not None and dim < width else None)
    # As many rows as texts came: none, where the row is there only because the operators need one.
    count = tail.Shape(texts) if takes == TEXT else tail.Shape(texts, end=1)
    rows = tail.Slice(unit, np.array([0]), count, np.array([0]))
    tail.output(rows, EMBEDDING, TensorProto.FLOAT, ["batch", dim or width])

    graph = helper.make_graph(
        [*front.nodes, *encoder.graph.node, *tail.nodes],
        "query_encoder",
        front.inputs,
        tail.outputs,
        initializer=[
            *front.initializers.values(),
            *within_window(encoder.graph, max_length),
            *tail.initializers.values(),
        ],
    )
    graph.value_info.extend(value for value in encoder.graph.output if value.name == ENCODER_OUTPUT)
    graph.sparse_initializer.extend(encoder.graph.sparse_initializer)
    graph.quantization_annotation.extend(encoder.graph.quantization_annotation)
    for domain, version in (*front.domains().items(), *tail.domains().items()):
        opsets[domain] = max(version, opsets.get(domain, 0))
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, opsets[domain]) for domain in sorted(opsets)],
        functions=list(encoder.functions),
        ir_version=max(IR_VERSION, encoder.ir_version),
        producer_name="edgeleaf",
    )
    props = {prop.key: prop.value for prop in encoder.metadata_props} | front.metadata | dict(metadata)
    helper.set_model_props(model, {key: props[key] for key in sorted(props)})
    onnx.checker.check_model(model)
    return model


def tap(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of a model that also gives out inner tensors.

    Args:
        model: for instance a fused query encoder.
        tensors: names of tensors that a node of the main graph makes, such as ``input_ids``; int64 [batch, sequence].
            Those that are outputs already stay where they are.

    Raises:
        ExportError: no node makes a tensor of that name.
    """
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    made = {name for node in model.graph.node for name in node.output}
    typed = {value.name: value for value in model.graph.value_info}
    for name in tensors:
        if name not in made:
            raise ExportError(f"no node makes a tensor {name!r}; pass the name of an inner tensor, such as input_ids")
        if all(output.name != name for output in tapped.graph.output):
            value = typed.get(name) or onnx.ValueInfoProto(name=name)  # without a type: the runtime infers it
            if name in TOKENIZER_OUTPUTS:
                value = helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            tapped.graph.output.append(value)
    return tapped


def tokenizer_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a fused file's tokenizer as a model of its own: text in, input_ids and attention_mask out.

    Raises:
        ExportError: it has no such inner tensors.
    """
    tapped = tap(model, ENCODER_INPUTS)
    ends = {end.name: end for end in tapped.graph.output}
    del tapped.graph.output[:]
    tapped.graph.output.extend(ends[name] for name in ENCODER_INPUTS)
    prune(tapped)
    return tapped


def with_input(
    model: onnx.ModelProto, tokenizer_json: str | dict[str, Any], *, max_length: int, prompt: str, takes: Input
) -> onnx.ModelProto:
    """Return a fused file with another input, or with today's tokenizer graph; the encoder inside stays as it is.

    Args:
        model: a fused file.
        tokenizer_json, max_length, prompt: what it was fused with, see :func:`fuse`.
        takes: its input, ``text`` or ``utf8``.

    Raises:
        ExportError: it is no fused file.
    """
    encoder = onnx.ModelProto()
    encoder.CopyFrom(model)
    typed = {value.name: value for value in model.graph.value_info}
    # Of token types, the encoder may make its own.
    front = {name for node in model.graph.node if node.name.startswith(f"{_TOKENIZER}/") for name in node.output}
    made = [name for name in TOKENIZER_OUTPUTS if name in front]
    if ENCODER_OUTPUT not in typed or not set(ENCODER_INPUTS) <= set(made):
        raise ExportError(f"the file holds no {', '.join((*ENCODER_INPUTS, ENCODER_OUTPUT))}: it is no fused file")
    del encoder.graph.node[:], encoder.graph.input[:], encoder.graph.output[:], encoder.metadata_props[:]
    encoder.graph.node.extend(node for node in model.graph.node if not set(node.output) & set(made))
    encoder.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in made
    )
    encoder.graph.output.append(typed[ENCODER_OUTPUT])
    prune(encoder)
    return fuse(
        encoder,
        tokenizer_json,
        max_length=max_length,
        prompt=prompt,
        dim=model.graph.output[0].type.tensor_type.shape.dim[1].dim_value,
        metadata={prop.key: prop.value for prop in model.metadata_props if prop.key != METADATA_LONG_TEXTS},
        takes=takes,
    )


def encoder_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a fused file's encoder as a model of its own: input_ids and attention_mask in, the unit vector out."""
    encoder = onnx.ModelProto()
    encoder.CopyFrom(model)
    nodes = [node for node in model.graph.node if not set(node.output) & set(ENCODER_INPUTS)]
    last = nodes[-1]
    if last.op_type == "Slice" and last.output[0] == EMBEDDING:  # the rows that stand for texts; here all of them do
        nodes[-1] = helper.make_node("Identity", [last.input[0]], [EMBEDDING])
    del encoder.graph.node[:], encoder.graph.input[:]
    encoder.graph.node.extend(nodes)
    encoder.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ENCODER_INPUTS
    )
    prune(encoder)
    onnx.checker.check_model(encoder)
    return encoder


def _check(encoder: onnx.ModelProto) -> tuple[int, bool]:
    """Check the encoder's ends, names and opset; return its embedding's width, and whether it wants token types."""
    graph = encoder.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    if not set(ENCODER_INPUTS) <= set(inputs) <= set(TOKENIZER_OUTPUTS):
        raise ExportError(f"the encoder's inputs are {', '.join(inputs)}; needed: {', '.join(ENCODER_INPUTS)}")
    for name, value in inputs.items():
        if value.type.tensor_type.elem_type != TensorProto.INT64:
            kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise ExportError(f"the encoder's input {name} is {kind}; needed: INT64")
    outputs = {value.name: value for value in graph.output}
    if ENCODER_OUTPUT not in outputs:
        raise ExportError(f"the encoder's outputs are {', '.join(outputs)}; needed: {ENCODER_OUTPUT}")
    tensor = outputs[ENCODER_OUTPUT].type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        raise ExportError(f"{ENCODER_OUTPUT} is {TensorProto.DataType.Name(tensor.elem_type)}; needed: FLOAT")
    if len(tensor.shape.dim) != 2 or not tensor.shape.dim[1].dim_value:
        raise ExportError(f"{ENCODER_OUTPUT} needs the shape [batch, width] with a fixed width; give it one at export")
    opset = next((o.version for o in encoder.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise ExportError(f"the encoder has opset {opset}; the tokenizer needs {OLDEST_OPSET}: export it with {OPSET}")
    return int(tensor.shape.dim[1].dim_value), "token_type_ids" in inputs


def _out_of_the_way(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """Return an encoder whose inner tensors have none of the fused graph's own names; the same one where none has.

    torch's exporter calls the output of an embedding table ``embedding``, as the fused file calls its own.
    """
    names = set(tensor_names(encoder.graph))
    fixed = {*INPUTS, EMBEDDING}
    ends = {value.name for value in (*encoder.graph.input, *encoder.graph.output)} - fixed
    ours = {name for name in names if name in fixed or name.startswith((f"{_TOKENIZER}/", f"{_TAIL}/"))}
    renamed: dict[str, str] = {}
    for name in sorted(ours - ends):
        new = f"encoder/{name}"
        while new in names:
            new = f"encoder/{new}"
        names.add(new)
        renamed[name] = new
    if not renamed:
        return encoder
    copy = onnx.ModelProto()
    copy.CopyFrom(encoder)
    rename_tensors(copy.graph, renamed)
    return copy


def _at_least_one(graph: GraphBuilder) -> str:
    """The texts, or an empty one where there are none: onnxruntime 1.20 to 1.31 ends the process on an empty batch."""
    lacking = graph.Max(graph.Sub(np.array([1]), graph.Shape(TEXT)), np.array([0]))
    return graph.Concat(TEXT, graph.Slice(np.array([""], dtype=object), np.array([0]), lacking), axis=0)


def _append_norm(graph: GraphBuilder, embedding: str, dim: int | None) -> str:
    """The first ``dim`` numbers of every row, brought to unit norm, float32 [batch, dim]; a zero row stays zero.

    In float64, so that the sum comes out the same on every processor, see :mod:`edgeleaf.graph.quantization.exact`.
    """
    if dim is not None:
        embedding = graph.Slice(embedding, np.array([0]), np.array([dim]), np.array([1]))
    wide = graph.Cast(embedding, to=TensorProto.DOUBLE)
    norm = graph.Max(graph.reduce("ReduceL2", wide, axes=[1]), _SMALLEST_NORM)  # [batch, 1]
    return graph.Cast(graph.Div(wide, norm), to=TensorProto.FLOAT)
