"""A fused file by itself: made of a tokenizer.json and an ONNX encoder that one has already, and looked into."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
    """What ``fuse_file`` has made.

    Args:
        path: the file.
        mb, tokenizer_mb: its size, and its tokenizer's part, in 10**6 bytes.
        tokenizer_nodes: ONNX nodes of the tokenizer.
        max_length: its window in tokens.
        space: the space of its vectors; the encoder itself counts as the teacher.
        output: the encoder's output that was taken.
        parity: how many texts were compared with ``tokenizers``, and how many differed (0, or there is no file).
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
    """A text as a fused file cuts it.

    Args:
        text: as it came; a prompt inside the file comes before it.
        input_ids: token ids, special tokens included.
        tokens: the same as strings, where a tokenizer.json is at hand.
        equal: whether ``tokenizers`` gives the same ids, where a tokenizer.json is at hand.
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
        encoder: an .onnx encoder; inputs named as transformers names them.
        output: the .onnx file to write, whole or not at all.
        pooling: ``mean``, ``cls``, ``last`` or ``max`` for an encoder that gives token vectors.
        encoder_output: the encoder's output to take; None chooses, where there is one choice.
        max_length: tokens a text may have; None takes the tokenizer.json's own truncation.
        prompt: put before every text.
        dim: keep the first ``dim`` numbers of the embedding.

    Raises:
        ExportError: an input that cannot be read or that does not fit the other.
        TokenizerNotSupported: the tokenizer cannot be reproduced exactly.
        GateFailed: a text got other token ids than from ``tokenizers``; nothing is written.
    """
    require("fuse")
    from edgeleaf.bundle.session import METADATA_SCHEMA, METADATA_SPACE, METADATA_WINDOW
    from edgeleaf.graph.adopt import adopt, load_model
    from edgeleaf.graph.builder import serialize
    from edgeleaf.graph.fuse import fuse, tokenizer_of

    if output.suffix != ".onnx" or output.is_dir():
        raise ExportError(f"{output}: give the name of a file that ends in .onnx")
    if encoder.exists() and output.exists() and output.samefile(encoder):
        raise ExportError(f"{output} is the encoder itself; give another name")
    text, settings = _read_tokenizer(tokenizer_json)
    window = max_length or (settings.get("truncation") or {}).get("max_length")
    if not window:
        raise ExportError(f"{tokenizer_json} says no length to cut texts to; say it with --max-length")
    loaded = load_model(encoder)
    adopted, taken = adopt(loaded, pooling=pooling, output=encoder_output)
    if len(loaded.graph.output) > 1:
        progress.say(f"fuse: takes the encoder's output {taken}, one of {len(loaded.graph.output)}")
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
        METADATA_SPACE: json.dumps(asdict(space), sort_keys=True),
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
    """Show how a fused file cuts texts.

    Args:
        path: a fused .onnx file, or a bundle.
        texts: any texts.
        tokenizer_json: to name the tokens and to compare with ``tokenizers``; None takes the bundle's own, if any.

    Raises:
        BundleError: not a fused file.
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
            f"{file}: its metadata does not say prompt and window; a file that this edgeleaf fused is needed"
        ) from None


def _try_window(model: onnx.ModelProto, encoder: onnx.ModelProto, tokenizer_json: str, window: int) -> None:
    """Run once with a text that fills the window, and the encoder with the tokenizer's highest id."""
    from edgeleaf.bundle.session import session
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    highest = max(reference_tokenizer(tokenizer_json, window).get_vocab().values())
    opened = session(encoder.SerializeToString(), threads=1)
    feed = {entry.name: np.ones((1, 2), np.int64) for entry in opened.get_inputs()}
    try:
        opened.run(None, feed | {"input_ids": np.full((1, 2), highest, np.int64)})
    except Exception:  # onnxruntime raises many kinds without a common base below Exception
        raise ExportError(
            f"the tokenizer gives ids up to {highest}, for which the encoder has no vector; they don't belong together"
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
            f"{parity.mismatches} of {parity.tried} texts get other token ids than from tokenizers, such as "
            f"{example.text[:60]!r}; nothing was written; please report it with the tokenizer.json"
        )
    return parity
