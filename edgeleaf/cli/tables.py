"""Results as the command line shows them: ``rich`` tables, and plain values for ``--json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeleaf.bundle.manifest import Manifest
from edgeleaf.emulation.processors import NATIVE
from edgeleaf.latency.report import p50_ms

if TYPE_CHECKING:
    from edgeleaf.certify.certificate import Certificate, RungReport
    from edgeleaf.certify.retrieval import Retrieval
    from edgeleaf.graph.standalone import FusedFile, TokenizedText
    from edgeleaf.pipeline.finish import Result


def result_table(result: Result) -> Any:
    """Return the result of a run as a table of nine lines."""
    from rich.table import Table

    summary = result_summary(result)
    table = Table(show_header=False, title=f"edgeleaf: {result.manifest.recipe}")
    before, after = summary["alignment"]["student"], summary["alignment"]["fused"]
    fused, teacher = summary["p50_ms"]["fused"], summary["p50_ms"]["teacher"]
    beside = f"; teacher {teacher:.1f} ms ({teacher / fused:.0f} times)" if fused and teacher else ""
    for name, value in (
        ("file", f"{summary['file_mb']:.1f} MB, tokenizer included"),
        ("vectors", f"{summary['dim']} numbers, space {summary['space']}"),
        (
            "cosine to the teacher",
            f"{before['cosine_mean']:.4f} student, {after['cosine_mean']:.4f} quantised and fused",
        ),
        ("overlap@10", f"{before['overlap_at_10']:.3f} student, {after['overlap_at_10']:.3f} quantised and fused"),
        ("token mismatches", f"{summary['token_mismatches']} of {summary['token_texts']:,} texts"),
        (
            f"p50, {summary['tokens']} tokens, {summary['threads']} thread",
            f"{fused:.2f} ms from the string{beside}",
        ),
        ("verdict", f"{'PASSED' if result.certificate.passed else 'FAILED'}, {len(result.certificate.verdicts)} gates"),
        ("encoder", str(result.bundle / "query_encoder.onnx")),
        ("certificate", str(result.bundle / "certificate.html")),
    ):
        table.add_row(name, value)
    return table


def result_summary(result: Result) -> dict[str, Any]:
    """Return the result of a run as plain values."""
    certificate = result.certificate
    threads = min(result.latency["settings"]["threads"])
    tokens = min(result.latency["settings"]["lengths"], key=lambda length: abs(length - 16))
    return {
        "bundle": str(result.bundle),
        "space": result.manifest.space.id,
        "dim": result.manifest.space.dim,
        "file_mb": certificate.sizes_mb["query_encoder.onnx"],
        "alignment": {
            rung.name: {"cosine_mean": rung.teacher_cosine.mean, "overlap_at_10": rung.overlap_at_10}
            for rung in certificate.rungs
        },
        "token_texts": certificate.parity.tried,
        "token_mismatches": certificate.parity.mismatches,
        "tokens": tokens,
        "threads": threads,
        "p50_ms": {
            name: p50_ms(result.latency, system=name, tokens=tokens, threads=threads)
            for name in ("fused", "student", "teacher")
        },
        "passed": certificate.passed,
    }


def certificate_table(certificate: Certificate) -> Any:
    """Return a certificate's rungs, for held-out queries and each collection; processors and verdicts below."""
    from rich.table import Table

    table = Table(title=f"{'PASSED' if certificate.passed else 'FAILED'}: {certificate.space['id']}")
    measures = ("cosine", "p01", "overlap@10", "overlap@100", "nDCG@10", "MRR@10", "recall@100")
    shown = measures if certificate.collections else measures[:4]
    for column in ("", *shown):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)

    def add(title: str, cells: Sequence[float | None], *, last: bool = False) -> None:
        numbers = ["" if number is None else f"{number:.4f}" for number in cells]
        table.add_row(title, *numbers[: len(shown)], end_section=last)

    def add_rungs(rungs: Sequence[RungReport], *, last: bool) -> None:
        for rung in rungs:
            cosine = rung.teacher_cosine
            numbers = (cosine.mean, cosine.p01, rung.overlap_at_10, rung.recall_at_100)
            add(rung.title, (*numbers, *_gains(rung.retrieval)), last=last and rung is rungs[-1])

    if certificate.collections:
        table.add_row(f"{certificate.queries:,} held-out queries", style="bold")
    add_rungs(certificate.rungs, last=True)
    nothing = (None,) * 4
    for collection in certificate.collections:
        table.add_row(f"{collection.name}, {collection.queries:,} queries", style="bold")
        if collection.teacher is not None:
            add("teacher", (*nothing, *_gains(collection.teacher)))
        add_rungs(collection.rungs, last=collection.symmetric is None)
        if collection.symmetric is not None:
            title = f"symmetric, documents by {collection.symmetric.documents}"
            add(title, (*nothing, *_gains(collection.symmetric.retrieval)), last=True)
    similarities = [
        f"Spearman on {found.name}: teacher {found.teacher.mean:.4f}, student {found.student.mean:.4f}, fused file "
        f"{found.fused.mean:.4f}, against the teacher {found.asymmetric.mean:.4f}"
        for found in certificate.similarities
    ]
    here = f" ({certificate.measured_on.get('processor_features', 'not known')})"
    processors = [
        f"processor {report.name}{here if report.name == NATIVE else ''}: "
        f"cosine to here at least {report.cosine_min:.6f}, {report.identical} of "
        f"{report.queries} identical"
        for report in certificate.processors
    ]
    table.caption = "\n".join([*similarities, *processors, *(verdict.line for verdict in certificate.verdicts)])
    return table


def _gains(found: Retrieval | None) -> tuple[float | None, ...]:
    """Return nDCG@10, MRR@10 and recall@100; None for those that are not known."""
    if found is None:
        return (None, None, None)
    recall = found.recall_at_100
    return (found.ndcg_at_10.mean, found.mrr_at_10.mean, None if recall is None else recall.mean)


def bundle_table(manifest: Manifest, bundle: Path) -> Any:
    """Return a bundle's description, one line per fact and file."""
    from rich.table import Table

    files = [name for name in manifest.files if (bundle / name).is_file()]
    table = Table(show_header=False, title=str(bundle))
    for name, value in (
        ("vector space", manifest.space.id),
        *((f"  {key}", value) for key, value in manifest.space.record().items()),
        ("recipe", manifest.recipe),
        *((f"student {key}", value) for key, value in manifest.student.items()),
        *((f"tokenizer {key}", value) for key, value in manifest.tokenizer.items()),
        *((f"quantization {key}", value) for key, value in manifest.quantization.items()),
        *((f"file {name}", f"{(bundle / name).stat().st_size / 1e6:.2f} MB") for name in files),
    ):
        table.add_row(name, json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value))
    return table


def bundle_summary(manifest: Manifest, certificate: Certificate | None) -> dict[str, Any]:
    """Return a bundle's manifest and a summary of its certificate (null without one) as plain values."""
    verdict = certificate and {
        "passed": certificate.passed,
        "failures": certificate.failures,
        "cosine_mean": certificate.rung("fused").teacher_cosine.mean,
        "overlap_at_10": certificate.rung("fused").overlap_at_10,
    }
    return {**manifest.record(), "certificate": verdict}


def fused_table(made: FusedFile) -> Any:
    """Return the result of ``edgeleaf fuse`` as a short table."""
    from rich.table import Table

    table = Table(show_header=False, title=str(made.path))
    for name, value in (
        ("file", f"{made.mb:.2f} MB; text: string[batch] to embedding: float32[batch, {made.space.dim}], unit norm"),
        (
            "tokenizer",
            f"{made.tokenizer_mb:.2f} MB of it, {made.tokenizer_nodes} nodes, cuts at {made.max_length} tokens",
        ),
        ("prompt", repr(made.space.query_prompt) if made.space.query_prompt else "none"),
        ("token mismatches", f"{made.parity.mismatches} of {made.parity.tried:,} texts, every code point among them"),
        ("vector space", made.space.id),
    ):
        table.add_row(name, value)
    return table


def fused_summary(made: FusedFile) -> dict[str, Any]:
    """Return the result of ``edgeleaf fuse`` as plain values."""
    return {**asdict(made), "path": str(made.path), "space": made.space.id}


def token_lines(row: TokenizedText) -> str:
    """Return a text and its tokens: ids, and names if they are known."""
    names = row.tokens or [""] * len(row.input_ids)
    cells = [f"{token_id} {name}".rstrip() for token_id, name in zip(row.input_ids, names, strict=True)]
    verdict = {True: "", False: "   <- `tokenizers` gives other ids", None: ""}[row.equal]
    return f"{row.text!r}: {len(row.input_ids)} tokens{verdict}\n  {'  '.join(cells)}"
