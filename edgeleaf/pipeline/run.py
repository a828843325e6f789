"""Builds a bundle from a recipe."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.processors import check_names
from edgeleaf.distributed.engine import Cluster, RayEngine
from edgeleaf.distributed.opening import Opening
from edgeleaf.distributed.team import team
from edgeleaf.extras import by_exporter, require
from edgeleaf.models.resolve import resolve
from edgeleaf.models.weights import weights_sha256
from edgeleaf.pipeline.finish import Result, finish
from edgeleaf.pipeline.places import output_folder, work_folder
from edgeleaf.pipeline.preflight import check_encoder, check_tokenizer, look_at_texts
from edgeleaf.recipe.presets import gates_for
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.recipe.specs import ObjectiveSpec, Recipe, TeacherSpec
from edgeleaf.stages.job import Job
from edgeleaf.stages.runner import Stages
from edgeleaf.stages.student import train_student, vocabulary_facts
from edgeleaf.stages.texts import collect_texts
from edgeleaf.stages.vectors import VECTOR_CACHE, quantize_teacher, write_vectors
from edgeleaf.teachers.base import Encodes, Teacher
from edgeleaf.teachers.opening import access_of, check_kind, load_teacher, open_teacher, student_prompt
from edgeleaf.teachers.precomputed import PrecomputedTeacher
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.texts.hub import pinned
from edgeleaf.texts.readers import fingerprint

REVISIONS = "revisions.json"
"""The hub's latest answer about the recipe's data sets."""


def run(
    recipe: str | Path,
    *,
    output: str | Path,
    processors: Sequence[str] = (),
    force: bool = False,
    cluster: Cluster | None = None,
) -> Result:
    """Build a recipe's bundle: texts, teacher vectors, student, export, quantisation, fusion, certificate, latency.

    Stages work in ``OUTPUT.work`` beside the bundle. Finished work is not repeated, so a run that was killed continues
    where it stopped.

    Args:
        recipe: path of a TOML recipe.
        output: folder of the bundle; an existing bundle is replaced. It is written only if every gate has passed.
        processors: emulated processors to certify it on, too, by their names in
            ``edgeleaf.emulation.processors.PROCESSORS``.
        force: run every stage again.
        cluster: make the teacher's vectors on Ray; they are the same on processors of one kind.

    Raises:
        GateFailed: the certificate fails a gate; the message names each failed gate and the page.
        EdgeleafError: bad input; there is one class per kind.
    """
    base = Path(recipe).resolve().parent
    return build(read_recipe(recipe), base, output, processors=processors, force=force, cluster=cluster)


def build(
    spec: Recipe,
    base: Path,
    output: str | Path,
    *,
    processors: Sequence[str] = (),
    force: bool = False,
    base_bundle: Manifest | None = None,
    cluster: Cluster | None = None,
) -> Result:
    """Build a recipe's bundle. Relative paths start at ``base``; ``base_bundle`` is the bundle it continues from."""
    target = output_folder(output)
    check_kind(spec.teacher)
    if cluster is not None:
        cluster.check()
    files = fingerprint(spec.texts.sources, base)
    check_names(processors)
    require("run" if base_bundle is None else "adapt", *by_exporter(spec.export.exporter))
    check_tokenizer(spec.student, prompt=student_prompt(spec.teacher))
    check_encoder(spec.student, exporter=spec.export.exporter, preset=spec.quantization.preset)
    with Stages(work_folder(target), force=force, team=team()) as stages:
        spec = _pinned(spec, stages)
        teacher = load_teacher(spec.teacher) if base_bundle is None else open_teacher(spec.teacher, base_bundle.space)
        texts, vectors, student = _distilled(spec, base, files, teacher, stages, cluster)
        job = Job(
            name=spec.name,
            description=spec.description,
            space=teacher.space,
            teacher=teacher.folder,
            teacher_max_length=spec.teacher.max_length,
            max_length=spec.student.max_length,
            made_by={
                "start": spec.student.model,
                "start_revision": spec.student.revision,
                "objective": asdict(_objective(spec, stages)),
                "texts": len(read_corpus(texts, "train")),
                "seed": spec.seed,
                **vocabulary_facts(student),
                **_descent(base_bundle),
                **access_of(spec.teacher),
                **({"teacher_trust_remote_code": True} if spec.teacher.trust_remote_code else {}),
            },
            origin=f"held out by the recipe {spec.name}{_stand_ins(teacher)}",
            gates=gates_for(spec.quantization.preset, spec.gates),
            benchmark=spec.benchmark,
            exporter=spec.export.exporter,
            preset=spec.quantization.preset,
            processors=processors,
        )
        return finish(job, stages, texts, vectors, student, target)


def distill(recipe: str | Path, *, output: str | Path, force: bool = False, cluster: Cluster | None = None) -> Path:
    """Run a recipe up to the student, a sentence-transformers model, and return its folder in ``OUTPUT.work``.

    Every process that ``torchrun`` or ``accelerate launch`` started calls it; they train together, and the main process
    alone does the rest and writes.
    """
    spec, target, base = read_recipe(recipe), output_folder(output), Path(recipe).resolve().parent
    check_kind(spec.teacher)
    if cluster is not None:
        cluster.check()
    files = fingerprint(spec.texts.sources, base)
    require("distill")
    with Stages(work_folder(target), force=force, team=team()) as stages:
        spec = _pinned(spec, stages)
        *_, student = _distilled(spec, base, files, load_teacher(spec.teacher), stages, cluster)
    return student / layout.STUDENT


def _pinned(spec: Recipe, stages: Stages) -> Recipe:
    """Set the revision of every hub dataset, so that a stage knows which one it was made from."""
    sources = stages.team.agree_on(lambda: pinned(spec.texts.sources, stages.work / REVISIONS))
    return replace(spec, texts=replace(spec.texts, sources=sources))


def _distilled(
    spec: Recipe, base: Path, files: list[str], teacher: Teacher, stages: Stages, cluster: Cluster | None
) -> tuple[Path, Path, Path]:
    texts = stages.run(
        "texts",
        {"texts": spec.texts, "files": files, "seed": spec.seed},
        lambda folder: collect_texts(folder, spec.texts, spec.seed, base),
    )
    look_at_texts(texts, spec, teacher)
    vectors = _vectors(texts, teacher, spec.teacher, stages, cluster)
    start = resolve(spec.student.model, revision=spec.student.revision)
    student = stages.run(
        "student",
        {
            "texts": texts,
            "vectors": vectors,
            "student": spec.student,
            "start": weights_sha256(start),
            "objective": _objective(spec, stages),
            "seed": spec.seed,
        },
        lambda folder: train_student(folder, texts, vectors, spec, teacher.space),
        together=True,
    )
    return texts, vectors, student


def _objective(spec: Recipe, stages: Stages) -> ObjectiveSpec:
    """Return the objective with the batch of all processes: with it, any number of them makes the same student."""
    return replace(spec.objective, batch_size=spec.objective.batch_size * stages.team.size)


def _vectors(texts: Path, teacher: Teacher, spec: TeacherSpec, stages: Stages, cluster: Cluster | None) -> Path:
    """Make the vectors of training and held-out texts; training texts by the teacher's int8 export if so requested."""
    from edgeleaf.teachers.quantized import QuantizedTeacher

    quick: Encodes = teacher
    exported: Path | None = None
    if spec.training_vectors == "int8" and teacher.device == "cpu" and isinstance(teacher, SentenceTransformerTeacher):
        exported = stages.run(
            "quantized-teacher",
            {"texts": texts, "space": teacher.space, "max_length": spec.max_length},
            lambda folder: quantize_teacher(folder, texts, teacher, spec),
        )
        quick = QuantizedTeacher(teacher, spec, exported)
    cache = stages.work / VECTOR_CACHE

    def make(folder: Path) -> None:
        write_vectors(folder, texts, teacher, cache, names=("held_out",))
        if cluster is None:
            write_vectors(folder, texts, quick, cache, names=("train",))
            return
        opening = Opening(spec, teacher.space, spec.max_length, exported=exported)
        shards = stages.work / "shards"
        engine = RayEngine(opening, cluster, beside=shards)
        write_vectors(folder, texts, quick, cache, names=("train",), engine=engine, shard=cluster.shard)
        shutil.rmtree(shards, ignore_errors=True)

    inputs = {"texts": texts, "space": teacher.space, "max_length": spec.max_length, "precision": quick.precision}
    return stages.run("vectors", inputs, make)


def _stand_ins(teacher: Teacher) -> str:
    """Return what a certificate must say about its queries, if the teacher has no vectors of any."""
    alone = isinstance(teacher, PrecomputedTeacher) and not teacher.has_queries
    return "; documents stand in for queries: the teacher is gone and left no vectors of queries" if alone else ""


def _descent(base: Manifest | None) -> dict[str, Any]:
    """Return the manifest's entry about the bundle that its student continues from."""
    if base is None:
        return {}
    before = base.student
    start = {key: before[key] for key in ("start", "start_revision") if key in before}
    return {**start, "adapted_from": f"{base.recipe}, weights {base.fact('student', 'weights_sha256')}"}
