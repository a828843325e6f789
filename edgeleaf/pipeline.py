"""The whole way: recipe to bundle. Only this module chains stages; each of them meets the next on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeleaf import bundle as layout
from edgeleaf import progress, steps
from edgeleaf.bundle import Manifest, VectorSpace
from edgeleaf.encoder import QueryEncoder
from edgeleaf.errors import BundleError, GateFailed
from edgeleaf.recipe import BenchmarkSpec, Gates, Recipe, TeacherSpec
from edgeleaf.recipe import load as load_recipe
from edgeleaf.stages import STAGE, Stages
from edgeleaf.texts import Text

if TYPE_CHECKING:
    from edgeleaf.certify import Certificate
    from edgeleaf.search import Hit, Index

EXPORT_GATES = Gates(cosine_mean=0.99, cosine_p01=0.98, overlap_at_10=0.9)
"""What the fused file of a model that is exported as it is must reach against the model itself."""


@dataclass(frozen=True)
class Result:
    """What a run leaves: the bundle, its certificate and its latencies."""

    bundle: Path
    manifest: Manifest
    certificate: Certificate
    latency: dict[str, Any]


def run(recipe: str | Path, *, output: str | Path, force: bool = False) -> Result:
    """Build the bundle of a recipe: texts, teacher vectors, student, graph, quantised, fused, checked, benchmarked.

    Stages work in ``OUTPUT.work`` beside the bundle; what is done there is not done again, so a run that was killed
    goes on where it stopped.

    Args:
        recipe: path of a TOML recipe.
        output: folder of the bundle; replaced when it is one, and written only when every gate has passed.
        force: run every stage again.

    Raises:
        GateFailed: the certificate is below a gate; the message names each and the page.
        EdgeleafError: bad input, each kind its own class.
    """
    spec, base = load_recipe(recipe), Path(recipe).resolve().parent
    output = _output(output)
    stages = Stages(work_folder(output), force=force)
    steps.check_tokenizer(
        spec.student.model,
        revision=spec.student.revision,
        max_length=spec.student.max_length,
        prompt=spec.teacher.query_prompt,
    )
    teacher = steps.load_teacher(spec.teacher)
    texts, vectors, student = _distilled(spec, base, teacher, stages)
    made_by = {
        "start": spec.student.model,
        "objective": asdict(spec.objective),
        "texts": len(steps.read(texts, "train")),
        "seed": spec.seed,
    }
    job = _Job(spec.name, spec.description, teacher.space, spec.student.max_length, made_by, spec.gates, spec.benchmark)
    return _ship(job, stages, student, vectors, output, teacher_folder=teacher.folder, torch_student=True)


def distill(recipe: str | Path, *, output: str | Path, force: bool = False) -> Path:
    """Run a recipe as far as the student, and return its folder in ``OUTPUT.work``: a sentence-transformers model."""
    spec, base = load_recipe(recipe), Path(recipe).resolve().parent
    stages = Stages(work_folder(_output(output)), force=force)
    *_, student = _distilled(spec, base, steps.load_teacher(spec.teacher), stages)
    return student / layout.STUDENT


def export(
    model: str,
    *,
    output: str | Path,
    prompt: str | None = None,
    max_length: int | None = None,
    texts: Sequence[str] = (),
    force: bool = False,
) -> Result:
    """Make the fused, quantised, checked bundle of an existing sentence-transformers model, without distilling.

    The model is its own teacher: the certificate says how close the file is to the model's own vectors.

    Args:
        model: a local folder, a hub id, or a model that a pip package carries; BERT WordPiece tokenizer, mean or CLS
            pooling, with or without Dense and Normalize (vectors are normalised in any case).
        output: folder of the bundle.
        prompt: put before every query, inside the file; the model's own query prompt where it is None.
        max_length: window in tokens; the model's own where it is None.
        texts: files with queries to check with, one a line; documentation found on this machine where it is empty.
        force: run every stage again.

    Raises:
        GateFailed, EdgeleafError: as :func:`run`.
    """
    output = _output(output)
    stages = Stages(work_folder(output), force=force)
    source, length, prompt = steps.load_for_export(model, max_length, prompt)
    steps.check_tokenizer(model, max_length=length, prompt=prompt)
    teacher = steps.load_teacher(TeacherSpec(model=model, query_prompt=prompt, max_length=length))
    files = tuple(str(Path(name).absolute()) for name in texts)
    held_out = stages.run("texts", {"files": files}, lambda folder: steps.check_texts(folder, files))
    vectors = stages.run(
        "vectors",
        {"texts": held_out, "space": teacher.space},
        lambda folder: steps.vectors(folder, held_out, teacher, stages.work / "vector-cache", names=("held_out",)),
    )
    student = stages.run(
        "student",
        {"model": teacher.space, "max_length": length},
        lambda folder: steps.normalized_copy(folder, source, length, prompt),
    )
    job = _Job(
        name=model.rstrip("/").rsplit("/", 1)[-1],
        description=f"{model}, exported as it is.",
        space=teacher.space,
        max_length=length,
        made_by={"start": model},
        gates=EXPORT_GATES,
        benchmark=BenchmarkSpec(),
    )
    return _ship(job, stages, student, vectors, output, teacher_folder=source, torch_student=False)


def check(bundle: str | Path, *, texts: Sequence[str] = ()) -> Certificate:
    """Measure a bundle again, write its certificate, and return it.

    Args:
        bundle: a bundle folder; its teacher must be within reach.
        texts: files with queries, one a line; otherwise the held-out texts of the run that made the bundle, when they
            are still in ``BUNDLE.work``, otherwise documentation found on this machine.

    Raises:
        BundleError, ModelError, TextsError: the bundle is damaged, its teacher or the texts cannot be had.
    """
    folder = Path(bundle)
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    teacher = steps.teacher_of(manifest)
    work = work_folder(folder)
    held_out = work / "texts"
    if texts or not (held_out / "held_out.jsonl").is_file():
        held_out = work / "check-texts"
        shutil.rmtree(held_out, ignore_errors=True)
        steps.check_texts(held_out, texts)
    vectors = work / "check-vectors"
    steps.vectors(vectors, held_out, teacher, work / "vector-cache", names=("held_out",))
    certificate = steps.certify_bundle(folder, held_out, vectors, manifest.space, Gates(**manifest.gates))
    steps.write_certificate(certificate, folder)
    replace(manifest, files=layout.hash_files(folder)).write(folder)
    return certificate


def bench(bundle: str | Path, *, repeats: int | None = None, alone: bool = False) -> dict[str, Any]:
    """Measure a bundle's latency from the string on this machine, and write its ``latency.json``.

    Args:
        bundle: a bundle folder.
        repeats: timed calls for each length; the default is the recipe's.
        alone: measure the fused file only: no teacher, no torch.
    """
    folder = Path(bundle)
    manifest = Manifest.read(folder)
    manifest.verify(folder, layout.QUERY_ENCODER, layout.GOLDEN)
    spec = BenchmarkSpec()
    teacher = None if alone else steps.find_teacher(manifest)
    return steps.benchmark(
        folder, replace(spec, repeats=repeats or spec.repeats), teacher=teacher, torch_student=not alone
    )


def index(bundle: str | Path, documents: str | Path, *, output: str | Path) -> Index:
    """Encode documents with a bundle's teacher and write an index that the bundle's queries can search.

    Args:
        bundle: a bundle folder; its teacher must be within reach.
        documents: BEIR's corpus.jsonl, or .txt with a document a line, gzipped or not.
        output: folder of the index.

    Raises:
        BundleError, ModelError, TextsError: the bundle is damaged, its teacher or the documents cannot be had.
    """
    from edgeleaf.search import Index
    from edgeleaf.search.documents import read_documents
    from edgeleaf.teacher import teacher_vectors

    folder, target = Path(bundle), Path(output).absolute()
    manifest = Manifest.read(folder)
    pairs = read_documents(Path(documents))
    texts = [Text(text, "document") for _, text in pairs]
    vectors = teacher_vectors(texts, steps.teacher_of(manifest), work_folder(target) / "vector-cache")
    made = Index(space=manifest.space, documents=pairs, vectors=vectors)
    made.save(target)
    shutil.rmtree(work_folder(target), ignore_errors=True)
    return made


def search(bundle: str | Path, index: str | Path, queries: Sequence[str], *, k: int = 10) -> list[list[Hit]]:
    """Find the documents nearest to each query; needs numpy and onnxruntime only.

    Raises:
        BundleError: the bundle or the index cannot be used, or they are of different vector spaces.
        InputError: what is given is no list of strings.
    """
    from edgeleaf.search import Index

    encoder, opened = QueryEncoder.load(bundle), Index.load(index)
    return opened.search(encoder.encode(queries), space=encoder.space, k=k)


def work_folder(output: Path) -> Path:
    """Return the folder where the stages of a bundle work: its neighbour, so that the bundle itself holds no scraps."""
    return output.with_name(output.name + ".work")


@dataclass(frozen=True)
class _Job:
    name: str
    description: str
    space: VectorSpace
    max_length: int
    made_by: dict[str, Any]
    gates: Gates
    benchmark: BenchmarkSpec


def _distilled(spec: Recipe, base: Path, teacher: Any, stages: Stages) -> tuple[Path, Path, Path]:
    texts = stages.run(
        "texts",
        {"texts": spec.texts, "seed": spec.seed, "base": str(base)},
        lambda folder: steps.texts(folder, spec.texts, spec.seed, base),
    )
    vectors = stages.run(
        "vectors",
        {"texts": texts, "space": teacher.space, "max_length": spec.teacher.max_length},
        lambda folder: steps.vectors(folder, texts, teacher, stages.work / "vector-cache"),
    )
    student = stages.run(
        "student",
        {"texts": texts, "vectors": vectors, "student": spec.student, "objective": spec.objective, "seed": spec.seed},
        lambda folder: steps.student(folder, texts, vectors, spec, teacher.space),
    )
    return texts, vectors, student


def _ship(
    job: _Job, stages: Stages, student: Path, vectors: Path, output: Path, *, teacher_folder: Path, torch_student: bool
) -> Result:
    """Student folder to shipped bundle: graph, quantised, fused, assembled, checked, benchmarked."""
    held_out = stages.work / "texts"
    graph = stages.run("graph", {"student": student}, lambda folder: steps.graph(folder, student, held_out))
    quantized = stages.run("quantized", {"graph": graph}, lambda folder: steps.quantized(folder, graph))
    fused = stages.run(
        "fused",
        {"quantized": quantized, "space": job.space, "max_length": job.max_length},
        lambda folder: steps.fused(folder, quantized, student, job.space, job.max_length),
    )
    manifest = Manifest(
        space=job.space,
        recipe=job.name,
        student=job.made_by,
        tokenizer=steps.tokenizer_facts(student, job.max_length),
        quantization=json.loads((quantized / "quantization.json").read_text(encoding="utf-8")),
        gates=asdict(job.gates),
        dims=(job.space.dim,),
        files={},
        edgeleaf_version=steps.version(),
    )
    assembled = stages.run(
        "assembled",
        {"student": student, "graph": graph, "fused": fused, "manifest": asdict(manifest)},
        lambda folder: steps.assembled(folder, student, graph, quantized, fused, held_out, manifest),
    )
    checked = stages.run(
        "checked",
        {"assembled": assembled, "vectors": vectors, "gates": job.gates},
        lambda folder: steps.write_certificate(
            steps.certify_bundle(assembled, held_out, vectors, job.space, job.gates), folder
        ),
    )
    certificate = steps.read_certificate(checked)
    if not certificate.passed:
        failures = "; ".join(certificate.failures)
        raise GateFailed(f"not shipped: {failures} (see {checked / layout.CERTIFICATE_PAGE})")
    timed = stages.run(
        "benchmarked",
        {"assembled": assembled, "benchmark": job.benchmark},
        lambda folder: steps.benchmark_into(folder, assembled, job.benchmark, teacher_folder, torch_student),
    )
    latency = json.loads((timed / layout.LATENCY).read_text(encoding="utf-8"))
    manifest = _assemble(job, assembled, checked, timed, certificate, output)
    return Result(output, manifest, certificate, latency)


def _assemble(
    job: _Job, assembled: Path, checked: Path, timed: Path, certificate: Certificate, output: Path
) -> Manifest:
    """Put the bundle together beside its place, then move it there in one step."""
    from edgeleaf.card import model_card

    progress.say(f"ship: {output}")
    new, old = output.with_name(f".{output.name}.new"), output.with_name(f".{output.name}.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    for stage in (assembled, checked, timed):
        steps.copy_tree(stage, new, leave=STAGE)
    manifest = Manifest.read(new)
    layout.write_text(new / layout.MODEL_CARD, model_card(manifest, job.description, certificate))
    manifest = replace(manifest, files=layout.hash_files(new))
    manifest.write(new)
    if output.exists():
        output.replace(old)
    new.replace(output)
    shutil.rmtree(old, ignore_errors=True)
    return manifest


def _output(path: str | Path) -> Path:
    output = Path(path).absolute()
    if output.exists() and not (output / layout.MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise BundleError(f"{path} is there and is no bundle; give a new folder, or one that edgeleaf wrote")
    return output
