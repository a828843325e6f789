"""Tokenizers as ONNX nodes: text or its UTF-8 in, token ids out, equal to Hugging Face ``tokenizers`` on every input.

One module per kind of model (``wordpiece``, ``bpe``, ``unigram``); ``append_tokenizer`` picks it by the tokenizer.json.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto

from edgeleaf.bundle.feed import TEXT, UTF8, Input
from edgeleaf.errors import ExportError, TokenizerNotSupported
from edgeleaf.graph.builder import OPSET, GraphBuilder
from edgeleaf.graph.tokenizers import bpe, unigram, wordpiece
from edgeleaf.graph.tokenizers.rows import append_rows
from edgeleaf.graph.tokenizers.spec import parse, read_spec, reference_tokenizer

_OPSETS = {"WordPiece": 16, "BPE": 18, "Unigram": 18}
"""The oldest opset of ai.onnx that has a model's operators: ScatterElements that adds; one that takes the minimum."""
_MODELS = {"WordPiece": wordpiece.append, "BPE": bpe.append, "Unigram": unigram.append}


def append_tokenizer(
    graph: GraphBuilder,
    text: str,
    tokenizer_json: str | dict[str, Any],
    *,
    max_length: int,
    prompt: str = "",
    token_type_ids: bool = False,
    takes: Input = TEXT,
) -> tuple[str, ...]:
    """Add the nodes that turn texts into token ids.

    Args:
        graph: the graph to add to.
        text: name of a string tensor [batch], batch >= 1. Or, where ``takes`` is ``utf8``, of a uint8 tensor
            [batch, bytes] of UTF-8, short rows filled up on the right with 0xFF; a batch of 0 gives one empty row.
        tokenizer_json: the text of a tokenizer.json, or the parsed dict. Its own padding and truncation lengths do not
            count: rows are padded to the longest of the batch and cut to ``max_length``, on the side that it says.
        max_length: tokens a row may have, special tokens included.
        prompt: put before every text; the two are tokenised as one string.
        token_type_ids: also make ``token_type_ids``, as the template says.
        takes: ``text`` or ``utf8``, what the tensor holds.

    Returns:
        The tensors ``input_ids`` and ``attention_mask``, and ``token_type_ids`` if asked for; int64 [batch, sequence].

    Raises:
        TokenizerNotSupported: the tokenizer asks for something that the graph cannot reproduce exactly.
        ExportError: not a tokenizer.json, or the prompt leaves no room for text within ``max_length``.

    Example:
        >>> graph = GraphBuilder("tokenizer")
        >>> text = graph.input("text", TensorProto.STRING, ["batch"])
        >>> append_tokenizer(graph, text, json_text, max_length=128)
        ('input_ids', 'attention_mask')
    """
    settings = parse(tokenizer_json)
    if graph.opset < (needed := opset_of(settings)):
        raise ExportError(f"the graph has opset {graph.opset}; this tokenizer needs {needed}")
    kind = settings["model"]["type"]
    spec = read_spec(settings)
    room = max_length - len(spec.prefix.ids) - len(spec.suffix.ids)
    if room < 1:
        raise ExportError(
            f"max_length {max_length} leaves no room for text beside {max_length - room} special tokens; "
            f"pass at least {max_length - room + 1}"
        )
    tokens = _MODELS[kind](graph, text, spec, max_length=max_length, prompt=prompt, takes=takes)
    made = append_rows(graph, tokens, spec, max_length, with_types=token_type_ids)
    names = ("input_ids", "attention_mask", "token_type_ids")
    return tuple(graph.alias(tensor, name) for tensor, name in zip(made, names, strict=False))


def opset_of(tokenizer_json: str | dict[str, Any]) -> int:
    """Return the oldest opset of ai.onnx that a tokenizer's operators are in.

    Raises:
        TokenizerNotSupported: there is no graph for its kind of model.
        ExportError: not a tokenizer.json.
    """
    kind = parse(tokenizer_json)["model"].get("type")
    if kind not in _MODELS:
        raise TokenizerNotSupported(f"tokenizer model {kind} is not supported: only {', '.join(_MODELS)}")
    return _OPSETS[kind]


def append_input(graph: GraphBuilder, takes: Input = TEXT) -> str:
    """Declare the input of a fused file: ``text``, string [batch], or ``utf8``, uint8 [batch, bytes]."""
    if takes == UTF8:
        return graph.input(UTF8, TensorProto.UINT8, ["batch", "bytes"])
    return graph.input(TEXT, TensorProto.STRING, ["batch"])


def as_model(
    tokenizer_json: str | dict[str, Any],
    *,
    max_length: int,
    prompt: str = "",
    token_type_ids: bool = False,
    takes: Input = TEXT,
) -> onnx.ModelProto:
    """Return a tokenizer as a model of its own: ``text`` or ``utf8`` to ``input_ids`` and ``attention_mask``.

    Arguments, outputs and errors are those of ``append_tokenizer``.
    """
    graph = GraphBuilder("tokenizer", opset=max(OPSET, opset_of(tokenizer_json)))
    for name in append_tokenizer(
        graph,
        append_input(graph, takes),
        tokenizer_json,
        max_length=max_length,
        prompt=prompt,
        token_type_ids=token_type_ids,
        takes=takes,
    ):
        graph.output(name, name, TensorProto.INT64, ["batch", "sequence"])
    return graph.model()


__all__ = ["append_input", "append_tokenizer", "as_model", "opset_of", "reference_tokenizer"]
