"""The check after quantisation: how close is the file that ships to the teacher, and does it keep its promises?

:func:`certify` measures, :func:`write` writes ``certificate.json`` and the page ``certificate.html``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf import bundle as layout
from edgeleaf.certify.alignment import cosine_rows, nearest, overlap, summary
from edgeleaf.certify.certificate import (
    DIGITS,
    Certificate,
    HardQuery,
    PerQuery,
    RungReport,
    Verdict,
    gates_verdicts,
    rounded,
    rounded_summary,
)
from edgeleaf.certify.invariance import Invariance, batch_invariance
from edgeleaf.certify.ladder import FUSED, RUNGS, STUDENT, climb, fused_encode
from edgeleaf.certify.parity import added_token_texts, fused_token_ids, reference_token_ids, token_parity
from edgeleaf.errors import TextsError

K = 10
WORST = 10
TOP = 3
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
    texts: str = "held-out texts",
    threads: int = 2,
    code_points: bool = False,
) -> Certificate:
    """Measure a bundle against its teacher: the ladder, rankings, token parity, batch invariance, sizes.

    Args:
        bundle: the folder, with ``query_encoder.onnx``, ``onnx/`` and ``student/``; nothing is written there.
        queries: held-out queries, without the prompt.
        teacher_queries: the teacher's vectors of them, float [len(queries), dim].
        documents: texts, shown beside the worst queries.
        teacher_documents: the teacher's vectors of them, float [len(documents), dim]; may be float16 and memory-mapped.
        gates: limits by name, see ``edgeleaf.recipe.Gates``; ``None`` is not asked.
        query_prompt: what the fused file puts before a query, and what the other rungs are given.
        space: the teacher's vector space, shown as it comes.
        texts: where queries and documents come from, shown as it is.
        threads: processor threads; does not appear in the certificate.
        code_points: also compare the token ids of every Unicode code point (half a minute).

    Returns:
        The certificate, figures rounded to 6 digits (batch invariance to 8); verdicts are about rounded figures.

    Raises:
        TextsError: too few queries or documents, or vectors that do not belong to them.
        BundleError: a file of the bundle is missing or cannot be opened.
        ExportError: a rung gives numbers that are not finite, or of another width than the teacher.
    """
    _check_inputs(queries, teacher_queries, documents, teacher_documents)
    ladder = climb(bundle, queries, query_prompt=query_prompt, threads=threads)
    width = ladder.vectors[FUSED].shape[1]
    if width != teacher_queries.shape[1]:
        raise TextsError(f"{bundle} gives {width} numbers, the teacher's vectors have {teacher_queries.shape[1]}")

    teacher_ranking = nearest(teacher_queries, teacher_documents, K)
    rankings = {name: nearest(rows, teacher_documents, K) for name, rows in ladder.vectors.items()}
    overlaps = {name: overlap(ranking, teacher_ranking) for name, ranking in rankings.items()}
    cosines = {name: cosine_rows(rows, teacher_queries) for name, rows in ladder.vectors.items()}
    to_student = {name: cosine_rows(rows, ladder.vectors[STUDENT]) for name, rows in ladder.vectors.items()}
    rungs = tuple(
        RungReport(
            name=name,
            title=title,
            file=place,
            teacher_cosine=rounded_summary(summary(cosines[name])),
            student_cosine=None if name == STUDENT else rounded_summary(summary(to_student[name])),
            overlap_at_10=round(float(overlaps[name].mean()), DIGITS),
        )
        for name, place, title in RUNGS
    )

    file = bundle / layout.QUERY_ENCODER
    parity = token_parity(
        fused_token_ids(file, threads=threads),
        reference_token_ids(ladder.tokenizer, query_prompt),
        texts=[*queries, *added_token_texts(ladder.tokenizer)],
        code_points=code_points,
    )
    chosen = sorted(random.Random(0).sample(range(len(queries)), min(INVARIANCE_TEXTS, len(queries))))
    measured = batch_invariance(
        fused_encode(file, threads=threads), [queries[i] for i in chosen], alone=ladder.vectors[FUSED][chosen]
    )
    invariance = Invariance(
        texts=measured.texts,
        placements=measured.placements,
        cosine_min=round(measured.cosine_min, INVARIANCE_DIGITS),
        cosine_mean=round(measured.cosine_mean, INVARIANCE_DIGITS),
        worst_text=measured.worst_text,
    )
    sizes_mb = {place: _mb(bundle / place) for _, place, _ in RUNGS}

    def top(ranking: npt.NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(_shortened(documents[row]) for row in ranking[:TOP])

    worst = tuple(
        HardQuery(
            query=queries[i],
            cosine=round(float(cosines[FUSED][i]), DIGITS),
            overlap_at_10=round(float(overlaps[FUSED][i]), DIGITS),
            teacher_top=top(teacher_ranking[i]),
            fused_top=top(rankings[FUSED][i]),
        )
        for i in np.argsort(cosines[FUSED], kind="stable")[:WORST]
    )
    student, fused = rungs[0], rungs[-1]
    quantization = fused.student_cosine or fused.teacher_cosine
    measurements = {
        "cosine_mean": fused.teacher_cosine.mean,
        "cosine_p01": fused.teacher_cosine.p01,
        "overlap_at_10": fused.overlap_at_10,
        "quantization_cosine_mean": quantization.mean,
        "quantization_cosine_min": quantization.min,
        "quantization_loss": round(student.teacher_cosine.mean - fused.teacher_cosine.mean, DIGITS),
        "batch_invariance_cosine_min": invariance.cosine_min,
        "token_mismatches": parity.mismatches,
        "file_mb": sizes_mb[layout.QUERY_ENCODER],
    }
    return Certificate(
        space=dict(space),
        query_prompt=query_prompt,
        max_length=ladder.max_length,
        file_sha256=layout.sha256(file),
        measured_on=_measured_on(),
        texts=texts,
        queries=len(queries),
        documents=len(documents),
        sizes_mb=sizes_mb,
        rungs=rungs,
        parity=parity,
        invariance=invariance,
        per_query=PerQuery(
            tokens=tuple(ladder.tokens),
            student_cosine=rounded(cosines[STUDENT].tolist()),
            fused_cosine=rounded(cosines[FUSED].tolist()),
            student_overlap_at_10=rounded(overlaps[STUDENT].tolist()),
            fused_overlap_at_10=rounded(overlaps[FUSED].tolist()),
        ),
        worst=worst,
        verdicts=tuple(gates_verdicts(measurements, gates)),
    )


def write(certificate: Certificate, folder: Path) -> None:
    """Write ``certificate.json`` and ``certificate.html`` into ``folder``, each whole or not at all.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    from edgeleaf.certify.page import render

    page = render(certificate)
    layout.write_text(folder / layout.CERTIFICATE, certificate.to_json())
    layout.write_text(folder / layout.CERTIFICATE_PAGE, page)


def _check_inputs(
    queries: Sequence[str],
    teacher_queries: npt.NDArray[Any],
    documents: Sequence[str],
    teacher_documents: npt.NDArray[Any],
) -> None:
    if not queries:
        raise TextsError("no held-out queries to check with; give some with --texts")
    if len(documents) <= K:
        raise TextsError(f"{len(documents)} documents; overlap@{K} means something from {K + 1} on: give more")
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

    from edgeleaf.machine import machine

    here = machine()
    return {
        "architecture": here["architecture"],
        "processor_features": ", ".join(here["features"]) or "not known",
        "onnxruntime": ort.__version__,
    }


def _mb(path: Path) -> float:
    """Size of a file, or of all files in a folder, in 10^6 bytes."""
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, DIGITS)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= DOCUMENT_CHARS else line[: DOCUMENT_CHARS - 1].rstrip() + "…"


__all__ = [
    "Certificate",
    "HardQuery",
    "Invariance",
    "PerQuery",
    "RungReport",
    "Verdict",
    "certify",
    "gates_verdicts",
    "write",
]
