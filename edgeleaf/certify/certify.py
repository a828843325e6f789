"""The check after quantisation: how close is the shipped file to the teacher, and does it keep its promises?

:func:`certify` measures, :func:`write` writes ``certificate.json`` and the page ``certificate.html``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.feed import input_of
from edgeleaf.bundle.session import session
from edgeleaf.certify.aligned import Aligned, collection_report
from edgeleaf.certify.alignment import DIGITS
from edgeleaf.certify.certificate import Certificate, HardQuery, PerQuery, rounded
from edgeleaf.certify.inputs import EncodedCollection, EncodedPairs
from edgeleaf.certify.invariance import Invariance, batch_invariance, padding_invariance
from edgeleaf.certify.ladder import RUNG_FUSED, RUNG_STUDENT, _FloatRows, climb, document_vectors, fused_encode
from edgeleaf.certify.processors import ProcessorReport
from edgeleaf.certify.shortened import shortened
from edgeleaf.certify.similarity import similarity
from edgeleaf.certify.verdicts import gates_verdicts
from edgeleaf.errors import TextsError
from edgeleaf.files import sha256, write_text
from edgeleaf.graph.hard_texts import added_token_texts
from edgeleaf.graph.parity import fused_token_ids, reference_token_ids, token_parity

_K = 10
WORST = 20
_TOP = 3
INVARIANCE_TEXTS = 128
INVARIANCE_DIGITS = 8
DOCUMENT_CHARS = 240


def certify(
    bundle: Path,
    *,
    queries: Sequence[str],
    teacher_queries: npt.NDArray[Any],
    documents: Sequence[str],
    teacher_documents: npt.NDArray[Any],
    gates: object,
    query_prompt: str,
    space: Mapping[str, str | int | bool | None],
    document_prompt: str = "",
    collections: Sequence[EncodedCollection] = (),
    pairs: Sequence[EncodedPairs] = (),
    processors: Sequence[ProcessorReport] = (),
    texts: str = "held-out texts",
    threads: int = 2,
    code_points: bool = False,
) -> Certificate:
    """Measure a bundle against its teacher: the ladder, rankings, token parity, invariances, short vectors, sizes.

    Args:
        bundle: the folder, with ``query_encoder.onnx``, ``onnx/`` and ``student/``; nothing is written there.
        queries: held-out queries, without the prompt.
        teacher_queries: the teacher's vectors of them, float [len(queries), dim].
        documents: texts; they are shown beside the worst queries.
        teacher_documents: the teacher's vectors of them, float [len(documents), dim]; may be float16 and memory-mapped.
        gates: limits by name, see ``edgeleaf.recipe.specs.Gates``; ``None`` and ``False`` mean no limit.
        query_prompt: the text that the fused file puts before a query; the other rungs get it with the query.
        space: the teacher's vector space, shown unchanged.
        document_prompt: the text that the student puts before a document.
        collections: further queries and documents with the teacher's vectors, and qrels if there are any.
        pairs: sentences with people's scores and the teacher's vectors.
        processors: the file's runs on other processors, passed through and judged.
        texts: the source of queries and documents, shown unchanged.
        threads: processor threads; not part of the certificate.
        code_points: also compare the token ids of every Unicode code point (half a minute).

    Returns:
        The certificate, with figures rounded to 6 digits (invariances to 8); verdicts judge rounded figures.

    Raises:
        TextsError: too few queries or documents, or vectors that do not belong to them.
        BundleError: a file of the bundle is missing or cannot be opened.
        ExportError: a rung gives numbers that are not finite, or of another width than the teacher.
    """
    _check_inputs(queries, teacher_queries, documents, teacher_documents)
    every = [*queries, *(query for part in collections for query in part.collection.queries)]
    every += [text for part in pairs for text in (*part.pairs.first, *part.pairs.second)]
    ladder = climb(bundle, every, query_prompt=query_prompt, threads=threads)
    width = ladder.vectors[RUNG_FUSED].shape[1]
    if width != teacher_queries.shape[1]:
        raise TextsError(f"{bundle} gives {width} numbers, the teacher's vectors have {teacher_queries.shape[1]}")

    counts = [len(queries), *(len(part.collection.queries) for part in collections)]
    parts = _parts(ladder.vectors, [*counts, *(2 * len(part.pairs.scores) for part in pairs)])
    held_out = Aligned(ladder.rungs, parts[0], teacher_queries, teacher_documents)
    rungs = held_out.reports()
    reports = tuple(
        collection_report(
            part,
            Aligned(ladder.rungs, vectors, part.teacher_queries, part.teacher_documents, part.collection),
            encode_documents=lambda texts: document_vectors(
                bundle, texts, query_prompt=query_prompt, document_prompt=document_prompt, threads=threads
            ),
        )
        for part, vectors in zip(collections, parts[1 : len(counts)], strict=True)
    )
    similarities = tuple(
        similarity(part, student=vectors[RUNG_STUDENT], fused=vectors[RUNG_FUSED])
        for part, vectors in zip(pairs, parts[len(counts) :], strict=True)
    )

    file = bundle / layout.QUERY_ENCODER
    parity = token_parity(
        fused_token_ids(file),  # one batch per core
        reference_token_ids(ladder.tokenizer, query_prompt),
        texts=[*queries, *added_token_texts(ladder.tokenizer)],
        code_points=code_points,
    )
    chosen = sorted(random.Random(0).sample(range(len(queries)), min(INVARIANCE_TEXTS, len(queries))))
    encode, tried = fused_encode(file, threads=threads), [queries[i] for i in chosen]
    alone = parts[0][RUNG_FUSED][chosen]
    in_batch = _rounded(batch_invariance(encode, tried, alone=alone))
    padded = _rounded(padding_invariance(encode, tried, window=ladder.max_length, alone=alone))
    sizes_mb = {rung.place: _mb(bundle / rung.place) for rung in ladder.rungs}

    student, fused = rungs[0], rungs[-1]
    quantization = fused.student_cosine or fused.teacher_cosine
    ndcg_losses = [loss for report in reports if (loss := report.ndcg_loss) is not None]
    measurements: dict[str, float] = {
        "cosine_mean": fused.teacher_cosine.mean,
        "cosine_p01": fused.teacher_cosine.p01,
        "overlap_at_10": fused.overlap_at_10,
        "quantization_cosine_mean": quantization.mean,
        "quantization_cosine_min": quantization.min,
        "quantization_loss": round(student.teacher_cosine.mean - fused.teacher_cosine.mean, DIGITS),
        "quantization_overlap_loss": round(student.overlap_at_10 - fused.overlap_at_10, DIGITS),
        "batch_invariance_cosine_min": in_batch.cosine_min,
        "padding_invariance_cosine_min": padded.cosine_min,
        "token_mismatches": parity.mismatches,
        "file_mb": sizes_mb[layout.QUERY_ENCODER],
    }
    if ndcg_losses:
        measurements["quantization_ndcg_loss"] = round(float(np.mean(ndcg_losses)), DIGITS)
    if processors:
        measurements["processor_cosine_min"] = min(report.cosine_min for report in processors)
    return Certificate(
        space=dict(space),
        query_prompt=query_prompt,
        max_length=ladder.max_length,
        file_sha256=sha256(file),
        measured_on=_measured_on(),
        texts=texts,
        queries=len(queries),
        documents=len(documents),
        sizes_mb=sizes_mb,
        rungs=rungs,
        parity=parity,
        batch_invariance=in_batch,
        padding_invariance=padded,
        shortened=shortened(teacher_queries, parts[0][RUNG_FUSED], teacher_documents),
        collections=reports,
        per_query=PerQuery(
            tokens=tuple(ladder.tokens[: len(queries)]),
            student_cosine=rounded(held_out.cosines[RUNG_STUDENT].tolist()),
            fused_cosine=rounded(held_out.cosines[RUNG_FUSED].tolist()),
            student_overlap_at_10=rounded(held_out.overlaps[RUNG_STUDENT].tolist()),
            fused_overlap_at_10=rounded(held_out.overlaps[RUNG_FUSED].tolist()),
        ),
        worst=_worst(held_out, queries, documents),
        verdicts=tuple(gates_verdicts(measurements, gates)),
        similarities=similarities,
        processors=tuple(processors),
        input=input_of(session(file, threads=threads)),
    )


def _parts(vectors: Mapping[str, _FloatRows], counts: Sequence[int]) -> list[dict[str, _FloatRows]]:
    """Cut every rung's rows into consecutive parts of ``counts`` rows."""
    ends = np.cumsum(counts)[:-1]
    cut = {name: np.split(rows, ends) for name, rows in vectors.items()}
    return [{name: rows[part] for name, rows in cut.items()} for part in range(len(counts))]


def _worst(held_out: Aligned, queries: Sequence[str], documents: Sequence[str]) -> tuple[HardQuery, ...]:
    """Return the queries whose fused vector is farthest from the teacher's, worst first."""

    def top(ranking: npt.NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(_shortened(documents[row]) for row in ranking[:_TOP])

    return tuple(
        HardQuery(
            query=queries[i],
            cosine=round(float(held_out.cosines[RUNG_FUSED][i]), DIGITS),
            overlap_at_10=round(float(held_out.overlaps[RUNG_FUSED][i]), DIGITS),
            teacher_top=top(held_out.teacher_ranking[i]),
            fused_top=top(held_out.rankings[RUNG_FUSED][i]),
        )
        for i in np.argsort(held_out.cosines[RUNG_FUSED], kind="stable")[:WORST]
    )


def _rounded(measured: Invariance) -> Invariance:
    return replace(
        measured,
        cosine_min=round(measured.cosine_min, INVARIANCE_DIGITS),
        cosine_mean=round(measured.cosine_mean, INVARIANCE_DIGITS),
    )


def write(certificate: Certificate, folder: Path) -> None:
    """Write ``certificate.json`` and ``certificate.html`` into ``folder``, each completely or not at all.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    from edgeleaf.certify.page import render

    page = render(certificate)
    write_text(folder / layout.CERTIFICATE, certificate.to_json())
    write_text(folder / layout.CERTIFICATE_PAGE, page)


def _check_inputs(
    queries: Sequence[str],
    teacher_queries: npt.NDArray[Any],
    documents: Sequence[str],
    teacher_documents: npt.NDArray[Any],
) -> None:
    if not queries:
        raise TextsError("no held-out queries to check with; give some with --texts")
    if len(documents) <= _K:
        raise TextsError(f"{len(documents)} documents; overlap@{_K} needs at least {_K + 1}: add documents")
    for name, texts, vectors in (("queries", queries, teacher_queries), ("documents", documents, teacher_documents)):
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise TextsError(f"{len(texts)} {name}, teacher vectors of shape {vectors.shape}; one row each is needed")
    if teacher_queries.shape[1] != teacher_documents.shape[1]:
        raise TextsError(
            f"teacher vectors of {teacher_queries.shape[1]} numbers for queries, {teacher_documents.shape[1]} for "
            "documents; one teacher must give both"
        )


def _measured_on() -> dict[str, str]:
    import onnxruntime as ort

    from edgeleaf.bundle.machine import machine

    here = machine()
    return {
        "architecture": here["architecture"],
        "processor_features": ", ".join(here["features"]) or "not known",
        "onnxruntime": ort.__version__,
    }


def _mb(path: Path) -> float:
    """Return the size of a file, or of all files in a folder, in 10^6 bytes."""
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, DIGITS)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= DOCUMENT_CHARS else line[: DOCUMENT_CHARS - 1].rstrip() + "…"
