"""The rungs from the trained student to the shipped file; each encodes the same queries.

torch student → ONNX fp32 → ONNX quantised (not for fp32) → fused. A loss shows at the rung that causes it. The ONNX
rungs encode one query at a time, as a device does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.encoder import ENCODE_BATCH
from edgeleaf.bundle.feed import feed_of
from edgeleaf.bundle.session import session
from edgeleaf.errors import BundleError, ExportError
from edgeleaf.recipe.presets import PRESETS, quantized_onnx

RUNG_STUDENT, RUNG_ONNX_FP32, RUNG_ONNX_QUANTIZED, RUNG_FUSED = "student", "onnx_fp32", "onnx_quantized", "fused"

_FloatRows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rung:
    """A rung's name, its path in the bundle, and its title."""

    name: str
    place: str
    title: str


def rungs_of(bundle: Path) -> tuple[Rung, ...]:
    """Return the rungs of a bundle, from the student to the fused file.

    There are three if nothing is quantised, and two if the bundle holds no unfused graphs
    (:mod:`edgeleaf.pipeline.ship`).
    """
    quantized = quantized_onnx(bundle)
    place = None if quantized is None else quantized.relative_to(bundle).as_posix()
    presets = {preset.file: name for name, preset in PRESETS.items()}
    whole = (bundle / layout.ONNX_FP32).parent.is_dir()
    return (
        Rung(RUNG_STUDENT, layout.STUDENT, "torch student"),
        *((Rung(RUNG_ONNX_FP32, layout.ONNX_FP32, "ONNX fp32"),) if whole else ()),
        *(() if place is None else (Rung(RUNG_ONNX_QUANTIZED, place, f"ONNX {presets[place]}"),)),
        Rung(RUNG_FUSED, layout.QUERY_ENCODER, "fused file"),
    )


@dataclass(frozen=True)
class Ladder:
    """The vectors of all rungs.

    Args:
        rungs: the rungs of the bundle.
        vectors: float32 [n, dim] by the rung's name, in the order of the queries.
        tokens: tokens of each query as the encoder sees it: prompt, special tokens and truncation included.
        max_length: the encoder's window in tokens.
        tokenizer: the reference tokenizer, truncating, without padding.
    """

    rungs: tuple[Rung, ...]
    vectors: dict[str, _FloatRows]
    tokens: list[int]
    max_length: int
    tokenizer: Any


def climb(bundle: Path, queries: Sequence[str], *, query_prompt: str = "", threads: int = 2) -> Ladder:
    """Encode ``queries`` on every rung of a bundle.

    Args:
        bundle: the folder.
        queries: texts without the prompt.
        query_prompt: the text put before each query for every rung but the last; the fused file contains it.
        threads: processor threads.

    Raises:
        BundleError: a rung's file is missing or cannot be opened.
        ExportError: a rung returns vectors of another width, or numbers that are not finite.
        MissingExtra: sentence-transformers or tokenizers is not installed.
    """
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    rungs = rungs_of(bundle)
    for rung in rungs:
        if not (bundle / rung.place).exists():
            raise BundleError(f"{bundle / rung.place}: missing; build or copy the bundle again")
    with progress.bar(f"check: {len(rungs)} rungs", len(rungs) * len(queries)) as advance:
        vectors = {}
        vectors[RUNG_STUDENT], max_length = student_vectors(
            bundle / layout.STUDENT, queries, prompt=query_prompt, threads=threads
        )
        advance(len(queries))
        tokenizer = reference_tokenizer(
            (bundle / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8"), max_length
        )
        ids = [encoding.ids for encoding in tokenizer.encode_batch([query_prompt + query for query in queries])]
        for rung in rungs[1:-1]:
            vectors[rung.name] = encoder_vectors(bundle / rung.place, ids, threads=threads)
            advance(len(queries))
        encode = fused_encode(bundle / layout.QUERY_ENCODER, threads=threads)
        vectors[RUNG_FUSED] = np.concatenate([encode([query]) for query in queries])
        advance(len(queries))
    _check(bundle, rungs, vectors, queries)
    return Ladder(
        rungs=rungs,
        vectors=vectors,
        tokens=[len(row) for row in ids],
        max_length=max_length,
        tokenizer=tokenizer,
    )


def student_vectors(
    folder: Path, queries: Sequence[str], *, prompt: str, threads: int, max_length: int | None = None
) -> tuple[_FloatRows, int]:
    """Encode with the torch student; return float32 [n, dim] and its window (its own if ``max_length`` is None)."""
    from edgeleaf.models.loading import load_sentence_transformer

    model = load_sentence_transformer(folder).to("cpu")
    model.max_seq_length = max_length or model.max_seq_length
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # An empty prompt is passed on: without it, the model would use its own default prompt.
        rows = model.encode(list(queries), prompt=prompt, batch_size=32, show_progress_bar=False, device="cpu")
    finally:
        torch.set_num_threads(before)
    return np.asarray(rows, dtype=np.float32), int(model.max_seq_length)


def encoder_vectors(file: Path, ids: Sequence[Sequence[int]], *, threads: int) -> _FloatRows:
    """Encode token ids, one text at a time, with an unfused encoder; return float32 [n, dim]."""
    encoder = session(file, threads=threads)
    inputs = {end.name for end in encoder.get_inputs()}
    unknown = inputs - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown or "input_ids" not in inputs:
        raise ExportError(f"{file}: takes {', '.join(sorted(inputs))}; input_ids and attention_mask are needed")
    rows = []
    for row in ids:
        tokens = np.asarray([row], dtype=np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        rows.append(encoder.run(["sentence_embedding"], {name: feed[name] for name in inputs})[0])
    return np.asarray(np.concatenate(rows), dtype=np.float32)


def fused_encode(file: Path, *, threads: int) -> Any:
    """Return ``encode(texts) -> float32 [n, dim]`` of a fused file, which encodes the whole sequence as one batch."""
    fused = session(file, threads=threads)
    feed = feed_of(fused)

    def encode(texts: Sequence[str]) -> _FloatRows:
        rows = fused.run(["embedding"], feed(texts))[0]
        return np.asarray(rows, dtype=np.float32)

    return encode


def document_vectors(
    bundle: Path, documents: Sequence[str], *, query_prompt: str, document_prompt: str, threads: int
) -> tuple[_FloatRows, str]:
    """Encode documents with the student; return float32 [n, dim] and the name of what encoded them.

    This is the fused file if documents have the same prompt as queries; otherwise the torch student, with the prompt of
    documents.
    """
    if query_prompt != document_prompt:
        rows, _ = student_vectors(bundle / layout.STUDENT, documents, prompt=document_prompt, threads=threads)
        return rows, "torch student"
    encode = fused_encode(bundle / layout.QUERY_ENCODER, threads=threads)
    by_length = sorted(range(len(documents)), key=lambda row: len(documents[row]))
    parts = []
    with progress.bar("check: documents by the fused file", len(documents)) as advance:
        for start in range(0, len(by_length), ENCODE_BATCH):
            rows_here = by_length[start : start + ENCODE_BATCH]
            parts.append(encode([documents[row] for row in rows_here]))
            advance(len(rows_here))
    vectors = np.empty((len(documents), parts[0].shape[1]), dtype=np.float32)
    vectors[by_length] = np.concatenate(parts)
    return vectors, "fused file"


def _check(bundle: Path, rungs: Sequence[Rung], vectors: dict[str, _FloatRows], queries: Sequence[str]) -> None:
    shape = vectors[RUNG_STUDENT].shape
    for rung in rungs:
        rows, place, title = vectors[rung.name], rung.place, rung.title
        if rows.shape != shape:
            raise ExportError(f"{bundle / place}: {title} gives {rows.shape}, the torch student {shape}; export again")
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            raise ExportError(
                f"{bundle / place}: {title} gives numbers that are not finite for {bad.size} of {len(queries)} "
                f"queries, the first {queries[bad[0]][:80]!r}; export again with another quantisation"
            )
