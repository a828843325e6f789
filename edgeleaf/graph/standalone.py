"""Fused files without a bundle: make one from an existing tokenizer.json and ONNX encoder, and inspect its tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import BundleError, ExportError, GateFailed, reason_of
from edgeleaf.extras import require
from edgeleaf.files import write_bytes

if TYPE_CHECKING:
    import onnx

    from edgeleaf.graph.parity import Parity


@dataclass(frozen=True)
class FusedFile:
    """A file that ``fuse_file`` has written.

    Args:
        path: the file.
        mb, tokenizer_mb: the size of the file and of its tokenizer, in 10**6 bytes.
        tokenizer_nodes: number of ONNX nodes in the tokenizer.
        max_length: its window in tokens.
        space: the vector space; the encoder itself counts as the teacher.
        output: the encoder's output that was used.
        parity: how many texts were compared with ``tokenizers``, and how many differed (always 0: if any differs, no
            file is written).
    """

    path: Path
    mb: float
    tokenizer_mb: float
    tokenizer_nodes: int
    max_length: int
    space: VectorSpace
    output: str
    parity: Parity


@dataclass(frozen=True)
class TokenizedText:
    """A text and the tokens that a fused file gives it.

    Args:
        text: the text as it was passed; a prompt inside the file is put before it.
        input_ids: token ids, including special tokens.
        tokens: the tokens as strings; None without a tokenizer.json.
        equal: whether ``tokenizers`` gives the same ids; None without a tokenizer.json.
    """

    text: str
    input_ids: tuple[int, ...]
    tokens: tuple[str, ...] | None
    equal: bool | None


def fuse_file(
    tokenizer_json: Path,
    encoder: Path,
    output: Path,
    *,
    pooling: str | None = None,
    encoder_output: str | None = None,
    max_length: int | None = None,
    prompt: str = "",
    dim: int | None = None,
) -> FusedFile:
    """Fuse a tokenizer and an encoder into one file, and compare its token ids with ``tokenizers``.

    Args:
        tokenizer_json: the tokenizer's file.
        encoder: an .onnx encoder whose inputs have the names that transformers uses.
        output: the .onnx file to write; if anything fails, it is not written.
        pooling: ``mean``, ``cls``, ``last`` or ``max``, for an encoder that returns token vectors.
        encoder_output: the encoder's output to use; None selects it automatically if only one is possible.
        max_length: the most tokens that a text may have; None uses the truncation set in tokenizer.json.
        prompt: put before every text.
        dim: keep only the first ``dim`` numbers of the embedding.

    Raises:
        ExportError: an input cannot be read, or tokenizer and encoder do not fit each other.
        TokenizerNotSupported: the tokenizer cannot be reproduced exactly.
        GateFailed: a text got token ids that differ from those of ``tokenizers``; nothing is written.
    """
    require("fuse")
    from edgeleaf.bundle.session import METADATA_SCHEMA, METADATA_SPACE, METADATA_WINDOW
    from edgeleaf.graph.adopt import adopt, load_model
    from edgeleaf.graph.builder import serialize
    from edgeleaf.graph.fuse import fuse, tokenizer_of
    from edgeleaf.graph.tokenizers.spec import template_types

    if output.suffix != ".onnx" or output.is_dir():
        raise ExportError(f"{output}: give the name of a file that ends in .onnx")
    if encoder.exists() and output.exists() and output.samefile(encoder):
        raise ExportError(f"{output} is the encoder itself; give another name")
    text, settings = _read_tokenizer(tokenizer_json)
    window = max_length or (settings.get("truncation") or {}).get("max_length")
    if not window:
        raise ExportError(f"{tokenizer_json} sets no maximum length for texts; give one with --max-length")
    loaded = load_model(encoder)
    adopted, taken = adopt(loaded, pooling=pooling, output=encoder_output)
    if len(loaded.graph.output) > 1:
        progress.say(f"fuse: using the encoder's output {taken}, one of {len(loaded.graph.output)}")
    if template_types(settings) is not None and all(end.name != "token_type_ids" for end in adopted.graph.input):
        progress.say("fuse: left out the token types of the tokenizer's template; the encoder has no token_type_ids")
    width = int(adopted.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    space = VectorSpace(
        teacher=encoder.stem,
        revision=None,
        weights_sha256=hashlib.sha256(serialize(loaded)).hexdigest(),
        pooling=pooling or "inside",
        normalized=True,
        query_prompt=prompt,
        document_prompt="",
        dim=dim or width,
    )
    metadata = {
        METADATA_SPACE: json.dumps(space.record(), sort_keys=True),
        METADATA_SCHEMA: str(layout.SCHEMA_VERSION),
        METADATA_WINDOW: str(int(window)),
    }
    model = fuse(adopted, text, max_length=int(window), prompt=prompt, dim=dim, metadata=metadata)
    _try_window(model, adopted, text, int(window))
    tokenizer = tokenizer_of(model)
    parity = _parity(tokenizer, text, int(window), prompt)
    data = serialize(model)
    write_bytes(output, data)
    return FusedFile(
        path=output,
        mb=len(data) / 1e6,
        tokenizer_mb=tokenizer.ByteSize() / 1e6,
        tokenizer_nodes=len(tokenizer.graph.node),
        max_length=int(window),
        space=space,
        output=taken,
        parity=parity,
    )


def tokenize(path: Path, texts: Sequence[str], *, tokenizer_json: Path | None = None) -> list[TokenizedText]:
    """Show the tokens that a fused file gives texts.

    Args:
        path: a fused .onnx file, or a bundle.
        texts: any texts.
        tokenizer_json: used to name the tokens and to compare with ``tokenizers``; None uses the bundle's own, if any.

    Raises:
        BundleError: this is not a fused file.
        ExportError: the tokenizer.json cannot be read.
    """
    file = path / layout.QUERY_ENCODER if path.is_dir() else path
    if tokenizer_json is None:
        beside = file.parent / layout.STUDENT / "tokenizer.json"
        tokenizer_json = beside if beside.is_file() else None
    require("tokenize", *(["tokenize --tokenizer"] if tokenizer_json else []))
    from edgeleaf.graph.parity import fused_token_ids

    rows = fused_token_ids(file)(texts) if texts else []
    if tokenizer_json is None:
        return [TokenizedText(text, tuple(ids), None, None) for text, ids in zip(texts, rows, strict=True)]
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    settings = _read_tokenizer(tokenizer_json)[1]
    prompt, window = _prompt_and_window(file)
    reference = reference_tokenizer(settings, window)
    found = []
    for text, ids in zip(texts, rows, strict=True):
        tokens = tuple(reference.id_to_token(token_id) or f"<{token_id}>" for token_id in ids)
        found.append(TokenizedText(text, tuple(ids), tokens, reference.encode(prompt + text).ids == ids))
    return found


def _read_tokenizer(path: Path) -> tuple[str, dict[str, Any]]:
    from edgeleaf.graph.tokenizers.spec import check_loads, parse

    if path.is_dir():
        raise ExportError(f"{path} is a folder; give its tokenizer.json")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ExportError(f"{path}: cannot be read ({reason}); a tokenizer.json is needed") from None
    try:
        settings = parse(text)
        check_loads(settings)
        return text, settings
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None


def _prompt_and_window(file: Path) -> tuple[str, int]:
    import onnx

    from edgeleaf.bundle.session import METADATA_SPACE, METADATA_WINDOW

    props = {prop.key: prop.value for prop in onnx.load(str(file)).metadata_props}
    try:
        return str(json.loads(props[METADATA_SPACE])["query_prompt"]), int(props[METADATA_WINDOW])
    except (KeyError, ValueError):
        raise BundleError(
            f"{file}: its metadata lacks the prompt or the window; a file fused by this version of edgeleaf is needed"
        ) from None


def _try_window(model: onnx.ModelProto, encoder: onnx.ModelProto, tokenizer_json: str, window: int) -> None:
    """Run the encoder with the tokenizer's highest id, and the fused model with a text that fills the window."""
    from edgeleaf.bundle.session import session
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    highest = max(reference_tokenizer(tokenizer_json, window).get_vocab().values())
    opened = session(encoder.SerializeToString(), threads=1)
    feed = {entry.name: np.ones((1, 2), np.int64) for entry in opened.get_inputs()}
    try:
        opened.run(None, feed | {"input_ids": np.full((1, 2), highest, np.int64)})
    except Exception:  # onnxruntime's errors share no base class below Exception
        raise ExportError(
            f"the tokenizer gives ids up to {highest}, for which the encoder has no vector; they do not fit together"
        ) from None
    try:
        session(model.SerializeToString(), threads=1).run(None, {"text": np.array(["", "a " * window], dtype=object)})
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ExportError(
            f"the encoder fails on {window} tokens; pass a smaller --max-length ({reason_of(reason)})"
        ) from None


def _parity(tokenizer: onnx.ModelProto, tokenizer_json: str, window: int, prompt: str) -> Parity:
    from edgeleaf.bundle.session import session
    from edgeleaf.graph.hard_texts import added_token_texts
    from edgeleaf.graph.parity import reference_token_ids, token_ids_of, token_parity
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    progress.say("fuse: comparing every code point's token ids with `tokenizers`")
    reference = reference_tokenizer(tokenizer_json, window)
    parity = token_parity(
        token_ids_of(session(tokenizer.SerializeToString(), threads=1)),
        reference_token_ids(reference, prompt),
        texts=added_token_texts(reference),
        code_points=True,
    )
    if parity.mismatches:
        example = parity.examples[0]
        raise GateFailed(
            f"{parity.mismatches} of {parity.tried} texts get token ids that differ from those of tokenizers, such as "
            f"{example.text[:60]!r}; nothing was written; please report it with the tokenizer.json"
        )
    return parity
