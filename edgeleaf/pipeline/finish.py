"""Makes a shipped bundle from a student: export, quantise, fuse, assemble, check, time, put in place."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import GateFailed
from edgeleaf.files import whole_folder, write_text
from edgeleaf.latency.report import write_latency
from edgeleaf.stages.assembled import assemble
from edgeleaf.stages.card import model_card
from edgeleaf.stages.checked import certify_bundle, processor_facts, read_certificate, write_certificate
from edgeleaf.stages.graph import export_graph, fuse_graph, quantize_graph
from edgeleaf.stages.job import Job
from edgeleaf.stages.runner import STAGE, Stages
from edgeleaf.stages.timed import benchmark

if TYPE_CHECKING:
    from edgeleaf.certify.certificate import Certificate


@dataclass(frozen=True)
class Result:
    """The result of a run: the bundle, its certificate and its latencies."""

    bundle: Path
    manifest: Manifest
    certificate: Certificate
    latency: dict[str, Any]


def finish(job: Job, stages: Stages, texts: Path, vectors: Path, student: Path, output: Path) -> Result:
    """Make a student's bundle, and put it at ``output`` if every gate passes.

    Args:
        job: what is shipped.
        stages: the folder of work.
        texts: folder with ``held_out.jsonl``.
        vectors: folder with ``held_out.npy``, the teacher's vectors of these texts.
        student: folder with ``student/``, a sentence-transformers model.
        output: the bundle's folder.

    Raises:
        GateFailed: the certificate is below a gate; nothing is put at ``output``.
    """
    graph = exported(stages, texts, student, exporter=job.exporter)
    quantized = stages.run(
        "quantized",
        {
            "graph": graph,
            "texts": texts,
            "preset": job.preset,
            "prompts": [job.space.query_prompt, job.space.document_prompt],
            "max_length": job.max_length,
        },
        lambda folder: quantize_graph(folder, graph, texts, student, job.space, job.max_length, job.preset),
    )
    fused = stages.run(
        "fused",
        {"quantized": quantized, "space": job.space, "max_length": job.max_length},
        lambda folder: fuse_graph(folder, graph, quantized, student, job.space, job.max_length),
    )
    assembled = stages.run(
        "assembled",
        {"texts": texts, "graph": graph, "fused": fused, "job": [job.name, job.description, job.made_by, job.origin]},
        lambda folder: assemble(folder, job, texts, student, graph, quantized, fused),
    )
    checked = stages.run(
        "checked",
        {"assembled": assembled, "vectors": vectors, "gates": job.gates, "processors": list(job.processors)},
        lambda folder: write_certificate(
            certify_bundle(assembled, texts, vectors, job.space, job.gates, job.origin, processors=job.processors),
            folder,
        ),
    )
    certificate = read_certificate(checked)
    if not certificate.passed:
        failures = "; ".join(certificate.failures)
        raise GateFailed(f"not shipped: {failures} (see {checked / layout.CERTIFICATE_PAGE})")
    timed = stages.run(
        "benchmarked",
        {"assembled": assembled, "benchmark": job.benchmark},
        lambda folder: write_latency(
            benchmark(assembled, spec=job.benchmark, teacher=job.teacher, torch_student=job.torch_student),
            folder,
        ),
    )
    report = json.loads((timed / layout.LATENCY).read_text(encoding="utf-8"))
    manifest = _place(job, (assembled, checked, timed), certificate, output)
    return Result(output, manifest, certificate, report)


def exported(stages: Stages, texts: Path, student: Path, *, exporter: str) -> Path:
    """Export a student, and return the folder of its graph in float32; the other arguments are those of finish."""
    return stages.run(
        "graph",
        {"student": student, "exporter": exporter},
        lambda folder: export_graph(folder, student, texts, exporter),
    )


def _place(job: Job, stages: tuple[Path, ...], certificate: Certificate, output: Path) -> Manifest:
    """Put the bundle together beside its final folder, then move it there in one step."""
    progress.say(f"ship: {output}")
    with whole_folder(output) as new:
        for stage in stages:
            shutil.copytree(stage, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(STAGE))
        for file in new.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # safetensors writes files that only their owner may read
        manifest = Manifest.read(new)
        write_text(new / layout.MODEL_CARD, model_card(manifest, certificate))
        manifest = replace(
            manifest,
            gates=asdict(job.gates),
            processors=processor_facts(certificate),
            files=layout.hash_files(new),
        )
        manifest.write(new)
    return manifest
