"""A student folder to a shipped bundle: graph, quantised, fused, assembled, checked, benchmarked, put in place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeleaf import __version__, checks, latency, models, progress, steps
from edgeleaf import bundle as layout
from edgeleaf.bundle import Manifest, VectorSpace
from edgeleaf.card import model_card
from edgeleaf.emulation import NATIVE
from edgeleaf.errors import GateFailed
from edgeleaf.machine import processor_kind
from edgeleaf.recipe import BenchmarkSpec, Gates
from edgeleaf.stages import STAGE, Stages

if TYPE_CHECKING:
    from edgeleaf.certify import Certificate

PROCESSOR_FACTS = ("queries", "cosine_min", "cosine_mean", "identical")
"""What the manifest repeats of the certificate's record of a processor."""


@dataclass(frozen=True)
class Result:
    """What a run leaves: the bundle, its certificate and its latencies."""

    bundle: Path
    manifest: Manifest
    certificate: Certificate
    latency: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is shipped, and what it must reach.

    Args:
        name, description: of the recipe, or of the model that is exported.
        space: the vector space of the outputs.
        teacher: the teacher's folder.
        teacher_max_length, max_length: windows of teacher and student in tokens.
        made_by: how the student was made, for the manifest.
        origin: where the texts it is checked with come from.
        gates, benchmark: of the recipe.
        preset: how the graph is made small, see ``edgeleaf.recipe.QuantizationSpec``.
        processors: others to compare this one with, by their names in ``edgeleaf.emulation``.
        torch_student: whether the student is timed beside its teacher; an exported model is its own teacher.
    """

    name: str
    description: str
    space: VectorSpace
    teacher: Path
    teacher_max_length: int
    max_length: int
    made_by: Mapping[str, Any]
    origin: str
    gates: Gates
    benchmark: BenchmarkSpec
    preset: str
    processors: Sequence[str] = ()
    torch_student: bool = True


def ship(job: Job, stages: Stages, texts: Path, vectors: Path, student: Path, output: Path) -> Result:
    """Make the bundle of a student, and put it at ``output`` if every gate passes.

    Args:
        job: what is shipped.
        stages: where the work is done.
        texts: folder with ``held_out.jsonl``.
        vectors: folder with ``held_out.npy``, the teacher's vectors of them.
        student: folder with ``student/``, a sentence-transformers model.
        output: the bundle's place.

    Raises:
        GateFailed: the certificate is below a gate; nothing is put at ``output``.
    """
    graph = stages.run("graph", {"student": student}, lambda folder: steps.graph(folder, student, texts))
    quantized = stages.run(
        "quantized",
        {
            "graph": graph,
            "texts": texts,
            "preset": job.preset,
            "prompts": [job.space.query_prompt, job.space.document_prompt],
            "max_length": job.max_length,
        },
        lambda folder: steps.quantized(folder, graph, texts, student, job.space, job.max_length, job.preset),
    )
    fused = stages.run(
        "fused",
        {"quantized": quantized, "space": job.space, "max_length": job.max_length},
        lambda folder: steps.fused(folder, graph, quantized, student, job.space, job.max_length),
    )
    assembled = stages.run(
        "assembled",
        {"texts": texts, "graph": graph, "fused": fused, "job": [job.name, job.description, job.made_by, job.origin]},
        lambda folder: _assemble(folder, job, texts, student, graph, quantized, fused),
    )
    checked = stages.run(
        "checked",
        {"assembled": assembled, "vectors": vectors, "gates": job.gates, "processors": list(job.processors)},
        lambda folder: checks.write_certificate(
            checks.certify_bundle(
                assembled, texts, vectors, job.space, job.gates, job.origin, processors=job.processors
            ),
            folder,
        ),
    )
    certificate = checks.read_certificate(checked)
    if not certificate.passed:
        failures = "; ".join(certificate.failures)
        raise GateFailed(f"not shipped: {failures} (see {checked / layout.CERTIFICATE_PAGE})")
    timed = stages.run(
        "benchmarked",
        {"assembled": assembled, "benchmark": job.benchmark},
        lambda folder: latency.write(
            checks.benchmark(assembled, spec=job.benchmark, teacher=job.teacher, torch_student=job.torch_student),
            folder,
        ),
    )
    report = json.loads((timed / layout.LATENCY).read_text(encoding="utf-8"))
    manifest = _place(job, (assembled, checked, timed), certificate, output)
    return Result(output, manifest, certificate, report)


def _assemble(folder: Path, job: Job, texts: Path, student: Path, graph: Path, quantized: Path, fused: Path) -> None:
    """Put student, graphs, fused file, held-out texts and golden pack together, with a first manifest."""
    from edgeleaf.golden import write_golden

    for source in (student, graph, quantized, fused):
        steps.link_tree(source, folder, leave=(STAGE, steps.QUANTIZATION))
    shutil.copyfile(texts / layout.HELD_OUT, folder / layout.HELD_OUT)
    queries = [text.text for text in steps.read(folder, "held_out") if text.kind == "query"]
    write_golden(folder, queries, max_length=job.max_length, prompt=job.space.query_prompt)
    manifest = Manifest(
        space=job.space,
        recipe=job.name,
        description=job.description,
        teacher_max_length=job.teacher_max_length,
        student={**job.made_by, "weights_sha256": models.weights_sha256(folder / layout.STUDENT)},
        tokenizer=steps.tokenizer_facts(folder, job.max_length),
        quantization=json.loads((quantized / steps.QUANTIZATION).read_text(encoding="utf-8")),
        gates={},
        held_out={"origin": job.origin, "texts": len(steps.read(folder, "held_out"))},
        dims=(job.space.dim,),
        files={name: digest for name, digest in layout.hash_files(folder).items() if name != STAGE},
        edgeleaf_version=__version__,
    )
    manifest.write(folder)


def processor_facts(certificate: Certificate) -> dict[str, dict[str, float]]:
    """What the manifest says of processors: this machine's own kind, and those it was compared with."""
    own = certificate.rungs[-1].teacher_cosine
    found: dict[str, dict[str, float]] = {processor_kind(): {"teacher_cosine_mean": own.mean}}
    for report in certificate.processors:
        if report.name != NATIVE:
            facts = asdict(report)
            found.setdefault(report.name, {}).update({name: facts[name] for name in PROCESSOR_FACTS})
    return found


def _place(job: Job, stages: tuple[Path, ...], certificate: Certificate, output: Path) -> Manifest:
    """Put the bundle together beside its place, then move it there in one step."""
    progress.say(f"ship: {output}")
    with layout.whole_folder(output) as new:
        for stage in stages:
            shutil.copytree(stage, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(STAGE))
        for file in new.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # safetensors writes files that only their owner may read
        manifest = Manifest.read(new)
        layout.write_text(new / layout.MODEL_CARD, model_card(manifest, certificate))
        manifest = replace(
            manifest,
            gates=asdict(job.gates),
            processors=processor_facts(certificate),
            files=layout.hash_files(new),
        )
        manifest.write(new)
    return manifest
