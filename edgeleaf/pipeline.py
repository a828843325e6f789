"""The whole way: recipe to bundle, and what can be done with a bundle. Only this module chains stages."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeleaf import bundle as layout
from edgeleaf import checks, latency, models, steps
from edgeleaf.adaptation import adaptation
from edgeleaf.bundle import Manifest
from edgeleaf.certify.processors import check_names
from edgeleaf.encoder import QueryEncoder
from edgeleaf.errors import BundleError, InputError
from edgeleaf.recipe import BenchmarkSpec, Gates, QuantizationSpec, Recipe, TeacherSpec, gates_for
from edgeleaf.recipe import load as load_recipe
from edgeleaf.shipping import Job, Result
from edgeleaf.shipping import ship as ship_student
from edgeleaf.stages import Stages
from edgeleaf.texts import Text, fingerprint

if TYPE_CHECKING:
    from edgeleaf.certify import Certificate
    from edgeleaf.search import Hit, Index

_ANY = Gates(quantization_overlap_loss=False, file_mb=False)
EXPORT_GATES: Mapping[str, Gates] = {
    "int8": replace(_ANY, cosine_mean=0.99, cosine_p01=0.98, overlap_at_10=0.85),
    "int4": replace(_ANY, cosine_mean=0.97, cosine_p01=0.94, overlap_at_10=0.70, quantization_loss=0.03),
    "fp16": replace(_ANY, cosine_mean=0.999, overlap_at_10=0.97),
    "fp32": replace(_ANY, cosine_mean=0.9999, overlap_at_10=0.99),
}
"""What the fused file of a model that is exported as it is must reach against the model itself, whatever its size. Its
ranking is measured by its own, of which any rounding at all costs a few places: there is no gate on that loss."""


def run(recipe: str | Path, *, output: str | Path, processors: Sequence[str] = (), force: bool = False) -> Result:
    """Build the bundle of a recipe: texts, teacher vectors, student, graph, quantised, fused, checked, benchmarked.

    Stages work in ``OUTPUT.work`` beside the bundle; what is done there is not done again, so a run that was killed
    goes on where it stopped.

    Args:
        recipe: path of a TOML recipe.
        output: folder of the bundle; replaced when it is one, and written only when every gate has passed.
        processors: others to certify it on, emulated, by their names in ``edgeleaf.emulation.PROCESSORS``.
        force: run every stage again.

    Raises:
        GateFailed: the certificate is below a gate; the message names each and the page.
        EdgeleafError: bad input, each kind its own class.
    """
    return _build(load_recipe(recipe), Path(recipe).resolve().parent, output, processors=processors, force=force)


def adapt(
    bundle: str | Path,
    *,
    documents: str | Path,
    queries: str | Path | None = None,
    output: str | Path,
    force: bool = False,
) -> Result:
    """Make a bundle's student better on the user's own text: minutes of LEAF, from the student as it is; no labels.

    Args:
        bundle: a bundle folder; its teacher must be within reach. It stays as it is.
        documents: BEIR's corpus.jsonl, or .txt with a document a line, gzipped or not: titles, sentences and runs of
            words from anywhere in them are learnt.
        queries: a file of real queries, one a line (.txt, .tsv or .jsonl), where there is one.
        output: folder of the new bundle, of the same vector space.
        force: run every stage again.

    Raises:
        GateFailed, EdgeleafError: as :func:`run`.
    """
    folder = Path(bundle)
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    _apart(folder, output)
    asked = None if queries is None else Path(queries).resolve()
    spec = adaptation(manifest, folder.resolve(), Path(documents).resolve(), asked)
    return _build(spec, Path(), output, force=force, base_bundle=manifest)


def _build(
    spec: Recipe,
    base: Path,
    output: str | Path,
    *,
    processors: Sequence[str] = (),
    force: bool = False,
    base_bundle: Manifest | None = None,
) -> Result:
    """Build a recipe's bundle; ``base`` is where its relative paths start, ``base_bundle`` what it goes on from."""
    target = _output(output)
    files = fingerprint(spec.texts.sources, base)
    check_names(processors)
    steps.require_distill()
    steps.check_tokenizer(spec.student, prompt=spec.teacher.query_prompt)
    with Stages(work_folder(target), force=force) as stages:
        teacher = steps.load_teacher(spec.teacher)
        if base_bundle is not None:
            steps.check_space(teacher, base_bundle.space)
        texts, vectors, student = _distilled(spec, base, files, teacher, stages)
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
                "objective": asdict(spec.objective),
                "texts": len(steps.read(texts, "train")),
                "seed": spec.seed,
                **_descent(base_bundle),
            },
            origin=f"held out by the recipe {spec.name}",
            gates=gates_for(spec.quantization.preset, spec.gates),
            benchmark=spec.benchmark,
            preset=spec.quantization.preset,
            processors=processors,
        )
        return ship_student(job, stages, texts, vectors, student, target)


def distill(recipe: str | Path, *, output: str | Path, force: bool = False) -> Path:
    """Run a recipe as far as the student, and return its folder in ``OUTPUT.work``: a sentence-transformers model."""
    spec, target, base = load_recipe(recipe), _output(output), Path(recipe).resolve().parent
    files = fingerprint(spec.texts.sources, base)
    steps.require_distill()
    with Stages(work_folder(target), force=force) as stages:
        *_, student = _distilled(spec, base, files, steps.load_teacher(spec.teacher), stages)
    return student / layout.STUDENT


def export(
    model: str,
    *,
    output: str | Path,
    prompt: str | None = None,
    prompt_name: str | None = None,
    max_length: int | None = None,
    texts: Sequence[str | Path] = (),
    preset: str = QuantizationSpec().preset,
    processors: Sequence[str] = (),
    force: bool = False,
) -> Result:
    """Make the fused, quantised, checked bundle of an existing sentence-transformers model, without distilling.

    The model is its own teacher: the certificate says how close the file is to the model's own vectors.

    Args:
        model: a local folder, a hub id, or a model that a pip package carries; BERT WordPiece tokenizer, mean or CLS
            pooling, with or without Dense and Normalize (vectors are normalised in any case).
        output: folder of the bundle.
        prompt: put before every query, inside the file; the model's own query prompt where it is None.
        prompt_name: take the prompt of that name among the model's own; not together with ``prompt``.
        max_length: window in tokens; the model's own where it is None.
        texts: files with queries to check with, one a line; documentation found on this machine where it is empty.
        preset: int8, int4, fp16 or fp32, see :class:`edgeleaf.recipe.QuantizationSpec`.
        processors: as for :func:`run`.
        force: run every stage again.

    Raises:
        GateFailed, EdgeleafError: as :func:`run`.
    """
    target = _output(output)
    check_names(processors)
    if preset not in EXPORT_GATES:
        raise InputError(f"preset is {preset!r}; allowed: {', '.join(EXPORT_GATES)}")
    checks.own_queries(texts)
    steps.require_distill()
    spec = steps.export_spec(model, max_length=max_length, query_prompt=prompt, prompt_name=prompt_name)
    steps.check_tokenizer(spec, prompt=spec.query_prompt)
    with Stages(work_folder(target), force=force) as stages:
        teacher = steps.load_teacher(spec)
        inputs = {"files": fingerprint(checks.query_files(texts), Path())}
        held_out = stages.run(
            "texts",
            inputs,
            lambda folder: checks.check_texts(folder, texts, calibration=steps.CALIBRATION_TEXTS),
        )
        cache = stages.work / steps.VECTOR_CACHE
        vectors = stages.run(
            "vectors",
            {"texts": held_out, "space": teacher.space, "max_length": spec.max_length},
            lambda folder: steps.vectors(folder, held_out, teacher, cache, names=("held_out",)),
        )
        student = stages.run(
            "student",
            {"model": teacher.space, "max_length": spec.max_length},
            lambda folder: steps.normalized_copy(folder, teacher.folder, spec),
        )
        job = Job(
            name=model.rstrip("/").rsplit("/", 1)[-1],
            description=f"{model}, exported as it is.",
            space=teacher.space,
            teacher=teacher.folder,
            teacher_max_length=spec.max_length,
            max_length=spec.max_length,
            made_by={"start": model},
            origin=checks.origin(texts),
            gates=gates_for(preset, EXPORT_GATES[preset]),
            benchmark=BenchmarkSpec(),
            preset=preset,
            processors=processors,
            torch_student=False,
        )
        return ship_student(job, stages, held_out, vectors, student, target)


def check(
    bundle: str | Path,
    *,
    texts: Sequence[str | Path] = (),
    collections: Sequence[str | Path] = (),
    pairs: Sequence[str | Path] = (),
    processors: Sequence[str] = (),
    output: str | Path | None = None,
) -> Certificate:
    """Measure a bundle again. The bundle stays as it is.

    Args:
        bundle: a bundle folder; its teacher must be within reach.
        texts: files with queries, one a line, ranked against documentation found on this machine; where it is empty,
            the held-out texts that the bundle was certified on.
        collections: folders in BEIR's layout, measured besides. Their teacher vectors, the long part of it, stay in
            ``BUNDLE.work``, so that the next check is quick.
        pairs: files of sentences with people's scores (STS): columns score, sentence1, sentence2, tabs between.
        processors: others to compare this one with, emulated, by their names in ``edgeleaf.emulation.PROCESSORS``.
        output: a new folder for the certificate and its page; nothing is written where it is None.

    Raises:
        BundleError, ModelError, TextsError: the bundle is damaged, its teacher or the texts cannot be had.
    """
    from edgeleaf.certify.similarity import encode_pairs
    from edgeleaf.collection import encode_collection

    folder, report = Path(bundle), checks.report_folder(output)
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    gates = checks.gates_of(manifest)
    check_names(processors)
    steps.require_distill()
    read, scored = checks.collections_of(collections), checks.pairs_of(pairs)
    with Stages(work_folder(folder)) as stages:
        held_out, origin = folder, str(manifest.held_out.get("origin"))
        own, vectors, cache = (stages.work / name for name in ("check-texts", "check-vectors", steps.VECTOR_CACHE))
        keeps = bool(read or scored) or cache.exists()  # of a run, or of a check with collections
        shutil.rmtree(own, ignore_errors=True)
        if texts:
            held_out, origin = own, checks.origin(texts)
            checks.check_texts(own, texts)
        teacher = steps.teacher_of(manifest)
        steps.vectors(vectors, held_out, teacher, cache, names=("held_out",))
        certificate = checks.certify_bundle(
            folder,
            held_out,
            vectors,
            manifest.space,
            gates,
            origin,
            collections=[encode_collection(collection, teacher, cache) for collection in read],
            pairs=[encode_pairs(part, teacher, cache) for part in scored],
            processors=processors,
        )
        if report is not None:
            with layout.whole_folder(report) as new:
                checks.write_certificate(certificate, new)
        for scraps in (own, vectors, *(() if keeps else (cache,))):
            shutil.rmtree(scraps, ignore_errors=True)
    return certificate


def bench(
    bundle: str | Path, *, repeats: int | None = None, alone: bool = False, output: str | Path | None = None
) -> dict[str, Any]:
    """Measure a bundle's latency from the string on this machine. The bundle stays as it is.

    Args:
        bundle: a bundle folder.
        repeats: timed calls for each length; 100 where it is None.
        alone: measure the fused file only: no teacher, no torch.
        output: a new folder for ``latency.json``; nothing is written where it is None.
    """
    folder, report = Path(bundle), checks.report_folder(output)
    manifest = Manifest.read(folder)
    manifest.verify(folder, layout.QUERY_ENCODER, layout.GOLDEN)
    spec = BenchmarkSpec()
    measured = checks.benchmark(
        folder,
        spec=replace(spec, repeats=repeats or spec.repeats),
        teacher=None if alone else checks.find_teacher(manifest),
        torch_student=not alone,
    )
    if report is not None:
        with layout.whole_folder(report) as new:
            latency.write(measured, new)
    return measured


def ship(
    bundle: str | Path,
    *,
    output: str | Path,
    texts: Sequence[str | Path] = (),
    processors: Sequence[str] = (),
    keep_texts: bool = False,
) -> Manifest:
    """Copy a bundle to give away: without unfused graphs, its student in float16, and none of its own texts.

    Args:
        bundle: a bundle folder. It stays as it is.
        output: folder of the copy.
        texts: files of queries that may be given away, one a line, to certify the copy on; documentation found on this
            machine where it is empty.
        processors: others to compare this one with, as in :func:`run`.
        keep_texts: leave the bundle's own held-out texts in the copy, and its certificate.

    Raises:
        BundleError: the bundle is damaged, ``output`` is there and is no bundle, or float16 costs the student too much.
        GateFailed: the copy fails a gate on other texts.
        InputError: ``keep_texts`` beside ``texts`` or ``processors``.
    """
    from edgeleaf.light import lighten

    if keep_texts and (texts or processors):
        raise InputError("the bundle's own texts and certificate are to be kept, and it is to be certified: choose one")
    check_names(processors)
    _apart(Path(bundle), output)
    checks.own_queries(texts)
    steps.require_distill()
    return lighten(Path(bundle), _output(output), texts=texts, processors=processors, keep_texts=keep_texts)


def breakdown(bundle: str | Path, *, repeats: int | None = None, output: str | Path | None = None) -> dict[str, Any]:
    """Measure where a query's time goes: tokenizer, encoder and the rest, beside other tokenizers.

    Args:
        bundle: a bundle folder. It stays as it is.
        repeats: timed calls for each length and part; 400 where it is None.
        output: a new folder for ``breakdown.json``; nothing is written where it is None.
    """
    from edgeleaf import breakdown as parts

    folder, report = Path(bundle), checks.report_folder(output)
    Manifest.read(folder).verify(folder, layout.QUERY_ENCODER, layout.GOLDEN)
    measured = parts.measure(folder, repeats=repeats or parts.REPEATS)
    if report is not None:
        with layout.whole_folder(report) as new:
            layout.write_json(new / "breakdown.json", measured)
    return measured


def index(
    bundle: str | Path, documents: str | Path, *, output: str | Path, pca_dims: int | None = None, force: bool = False
) -> Index:
    """Encode documents with a bundle's teacher and write an index that the bundle's queries can search.

    Args:
        bundle: a bundle folder; its teacher must be within reach.
        documents: BEIR's corpus.jsonl, or .txt with a document a line, gzipped or not.
        output: folder of the index.
        pca_dims: shorten the vectors to so many numbers, along the documents' principal axes; None keeps them whole.
        force: replace an index that is there.

    Raises:
        BundleError, ModelError, TextsError: the bundle is damaged, its teacher or the documents cannot be had.
        InputError: ``pca_dims`` below 1, or not below the space's width.
    """
    from edgeleaf.search import Index
    from edgeleaf.search.documents import read_documents
    from edgeleaf.search.pca import check_dims
    from edgeleaf.teacher import teacher_vectors

    manifest, target = Manifest.read(Path(bundle)), Path(output)
    Index.check_target(target, force=force)
    if pca_dims is not None:
        check_dims(pca_dims, manifest.space.dim)
    pairs = read_documents(Path(documents))
    steps.require_distill()
    texts = [Text(text, "document") for _, text in pairs]
    cache = work_folder(target) / steps.VECTOR_CACHE
    made = Index(
        space=manifest.space, documents=pairs, vectors=teacher_vectors(texts, steps.teacher_of(manifest), cache)
    )
    if pca_dims is not None:
        made = made.shortened(pca_dims)
    made.save(target, force=force)
    shutil.rmtree(work_folder(target), ignore_errors=True)
    return made


def search(bundle: str | Path, index: str | Path, queries: Sequence[str], *, k: int = 10) -> list[list[Hit]]:
    """Find the documents nearest to each query; needs numpy and onnxruntime only.

    Raises:
        BundleError: the bundle or the index cannot be used, or they are of different vector spaces.
        InputError: what is given is no list of strings.
    """
    from edgeleaf.search import Index

    opened, encoder = Index.load(index), QueryEncoder.load(bundle)
    return opened.search(encoder.encode(queries), space=encoder.space, k=k)


def work_folder(output: Path) -> Path:
    """Return the folder where the stages of a bundle work: its neighbour, so that the bundle itself holds no scraps."""
    output = output.resolve()
    return output.with_name(output.name + ".work")


def _distilled(spec: Recipe, base: Path, files: list[str], teacher: Any, stages: Stages) -> tuple[Path, Path, Path]:
    texts = stages.run(
        "texts",
        {"texts": spec.texts, "files": files, "seed": spec.seed},
        lambda folder: steps.texts(folder, spec.texts, spec.seed, base),
    )
    steps.look_at_texts(texts, spec, teacher)
    vectors = _vectors(texts, teacher, spec.teacher, stages)
    start = models.resolve(spec.student.model, revision=spec.student.revision)
    student = stages.run(
        "student",
        {
            "texts": texts,
            "vectors": vectors,
            "student": spec.student,
            "start": models.weights_sha256(start),
            "objective": spec.objective,
            "seed": spec.seed,
        },
        lambda folder: steps.student(folder, texts, vectors, spec, teacher.space),
    )
    return texts, vectors, student


def _vectors(texts: Path, teacher: Any, spec: TeacherSpec, stages: Stages) -> Path:
    """Vectors of training texts and held-out texts; the former by the teacher's int8 export where that is asked for."""
    from edgeleaf.quantized_teacher import QuantizedTeacher

    quick = teacher
    if spec.training_vectors == "int8" and teacher.device == "cpu":
        exported = stages.run(
            "quantized-teacher",
            {"texts": texts, "space": teacher.space, "max_length": spec.max_length},
            lambda folder: steps.quantized_teacher(folder, texts, teacher, spec),
        )
        quick = QuantizedTeacher(teacher, spec, exported)
    cache = stages.work / steps.VECTOR_CACHE

    def make(folder: Path) -> None:
        steps.vectors(folder, texts, teacher, cache, names=("held_out",))
        steps.vectors(folder, texts, quick, cache, names=("train",))

    inputs = {"texts": texts, "space": teacher.space, "max_length": spec.max_length, "precision": quick.precision}
    return stages.run("vectors", inputs, make)


def _descent(base: Manifest | None) -> dict[str, Any]:
    """What a manifest says of the bundle that its student goes on from."""
    if base is None:
        return {}
    before = base.student
    start = {key: before[key] for key in ("start", "start_revision") if key in before}
    return {**start, "adapted_from": f"{base.recipe}, weights {before['weights_sha256']}"}


def _apart(bundle: Path, output: str | Path) -> None:
    """Raise InputError where a bundle would take its own source's place."""
    if Path(output).resolve() == bundle.resolve():
        raise InputError(f"{output} is the bundle itself, which stays as it is; give another folder with -o")


def _output(path: str | Path) -> Path:
    output = Path(path)
    if output.exists() and not (output / layout.MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise BundleError(f"{path} is there and is no bundle; give a new folder, or one that edgeleaf wrote")
    return output


__all__ = ["Result", "adapt", "bench", "check", "distill", "export", "index", "run", "search", "work_folder"]
