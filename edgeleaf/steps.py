"""What each stage of the pipeline does: a folder is filled from folders. No step knows which comes before or after."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeleaf import bundle as layout
from edgeleaf import models, progress
from edgeleaf.bundle import Manifest, VectorSpace
from edgeleaf.errors import ModelError, TokenizerNotSupported
from edgeleaf.recipe import BenchmarkSpec, Gates, Recipe, TeacherSpec, TextsSpec
from edgeleaf.texts import Corpus, FilesSource, MachineSource, Text, collect, read_texts, write_corpus

if TYPE_CHECKING:
    from edgeleaf.certify import Certificate
    from edgeleaf.teacher import SentenceTransformerTeacher, Teacher

CHECK_QUERIES = 1000
CHECK_DOCUMENTS = 1000
START_TEXTS = 4096
"""Training texts that the projection's closed-form start is fitted on."""
EVALUATED = 256
"""Held-out queries by which training is watched."""
LADDER_LENGTHS = (1, 5, 20, 60, 200)
"""Words of the texts that the exported graph is compared with torch on."""


def load_teacher(spec: TeacherSpec) -> SentenceTransformerTeacher:
    """Find and load the teacher of a recipe."""
    from edgeleaf.teacher import SentenceTransformerTeacher

    progress.say(f"teacher: {spec.model}")
    return SentenceTransformerTeacher(spec)


def teacher_of(manifest: Manifest) -> SentenceTransformerTeacher:
    """Load the teacher that a bundle's vector space names.

    Raises:
        ModelError: it cannot be found, or what is found under its name has other weights.
    """
    space = manifest.space
    spec = TeacherSpec(
        model=space.teacher,
        revision=space.revision,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
        max_length=int(manifest.tokenizer["max_length"]),
    )
    teacher = load_teacher(spec)
    if teacher.space.weights_sha256 != space.weights_sha256:
        raise ModelError(
            f"{space.teacher}: weights {teacher.space.weights_sha256[:12]}…, the bundle's space has "
            f"{space.weights_sha256[:12]}…; put that teacher's folder in its place"
        )
    return teacher


def check_tokenizer(model: str, *, max_length: int, prompt: str, revision: str | None = None) -> None:
    """Find out before the long work whether a model's tokenizer can be fused at all.

    Raises:
        TokenizerNotSupported, ExportError: it cannot; the message names what stands in the way.
    """
    from transformers import AutoTokenizer

    from edgeleaf.graph.builder import GraphBuilder, TensorProto
    from edgeleaf.graph.tokenizers import append_tokenizer, reference_tokenizer

    folder = models.resolve(model, revision=revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{model}: its tokenizer cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if not tokenizer.is_fast:
        raise TokenizerNotSupported(f"{model} has no tokenizer.json; give a model with a fast tokenizer")
    settings = tokenizer.backend_tokenizer.to_str()
    if not reference_tokenizer(settings, max_length).encode("").ids:
        raise TokenizerNotSupported(f"{model}: its tokenizer makes no token of an empty text; one with [CLS] is needed")
    builder = GraphBuilder("check")
    text = builder.input("text", TensorProto.STRING, ["batch"])
    append_tokenizer(builder, text, settings, max_length=max_length, prompt=prompt)
    progress.say(f"tokenizer of {model}: can be fused")


def texts(folder: Path, spec: TextsSpec, seed: int, base: Path) -> None:
    """Collect the texts of a recipe: ``train.jsonl`` and ``held_out.jsonl``."""
    corpus = collect(
        spec.sources,
        limit=spec.limit,
        held_out_queries=spec.held_out_queries,
        held_out_documents=spec.held_out_documents,
        max_chars=spec.max_chars,
        seed=seed,
        base=base,
    )
    write_corpus(corpus, folder)


def check_texts(folder: Path, files: Sequence[str]) -> None:
    """Collect texts to check with: queries from ``files`` where there are some, the rest from this machine."""
    own: list[Text] = []
    if files:
        absolute = tuple(str(Path(name).absolute()) for name in files)
        sources = [FilesSource(absolute, "query")]
        own = collect(sources, limit=CHECK_QUERIES, held_out_queries=0, held_out_documents=0, seed=0, base=Path()).train
    machine = collect(
        [MachineSource()],
        limit=1,
        held_out_queries=0 if own else CHECK_QUERIES,
        held_out_documents=CHECK_DOCUMENTS,
        max_chars=500,
        seed=0,
        base=Path(),
    )
    write_corpus(Corpus(train=[], held_out=own + machine.held_out), folder)


def read(folder: Path, name: str) -> list[Text]:
    """Return the texts ``train`` or ``held_out`` of a texts folder."""
    return read_texts(folder / f"{name}.jsonl")


def vectors(
    folder: Path, texts: Path, teacher: Teacher, cache: Path, names: Sequence[str] = ("train", "held_out")
) -> None:
    """Write the teacher's vectors of each set of texts: ``train.npy``, ``held_out.npy``, float16 [n, dim]."""
    from edgeleaf.teacher import teacher_vectors

    folder.mkdir(parents=True, exist_ok=True)
    sets = {name: read(texts, name) for name in names}
    found = teacher_vectors([text for part in sets.values() for text in part], teacher, cache)
    start = 0
    for name, part in sets.items():
        np.save(folder / f"{name}.npy", found[start : start + len(part)])
        start += len(part)


def student(folder: Path, texts: Path, vectors: Path, recipe: Recipe, space: VectorSpace) -> None:
    """Distil a student into ``student/``; resumes from the checkpoints of a killed run."""
    from edgeleaf.distillation.trainer import Examples, train, write_student
    from edgeleaf.student import build_student, start_projection

    prompts = {"query": space.query_prompt, "document": space.document_prompt}

    def examples(name: str, kinds: tuple[str, ...], most: int | None = None) -> Examples:
        found = [(i, text) for i, text in enumerate(read(texts, name)) if text.kind in kinds][:most]
        matrix = np.load(vectors / f"{name}.npy", mmap_mode="r")
        rows = [i for i, _ in found]
        return Examples(
            texts=[prompts[text.kind] + text.text for _, text in found],
            vectors=matrix if len(rows) == len(matrix) else matrix[rows],
        )

    spec = recipe.student
    model = build_student(
        models.resolve(spec.model, revision=spec.revision),
        dim=space.dim,
        max_length=spec.max_length,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
    )
    train_set = examples("train", ("query", "document"))
    checkpoints = folder / "checkpoints"
    if not checkpoints.exists():
        start_projection(model, train_set.texts[:START_TEXTS], train_set.vectors[:START_TEXTS], ridge=spec.ridge)
    held_out = examples("held_out", ("query",), EVALUATED)
    curve = train(model, train_set, held_out, objective=recipe.objective, seed=recipe.seed, checkpoints=checkpoints)
    write_student(model, curve, folder / layout.STUDENT)
    shutil.rmtree(checkpoints, ignore_errors=True)


def load_for_export(name: str, max_length: int | None, prompt: str | None) -> tuple[Path, int, str]:
    """Find a model to export as it is; returns its folder, its window and its query prompt."""
    from edgeleaf.student import load_sentence_transformer

    source = models.resolve(name)
    model = load_sentence_transformer(source, max_length=max_length)
    return source, int(model.max_seq_length), prompt if prompt is not None else model.prompts.get("query") or ""


def normalized_copy(folder: Path, source: Path, max_length: int, prompt: str) -> None:
    """Write the model into ``student/`` with a final Normalize, its window and its query prompt."""
    from sentence_transformers.models import Normalize

    from edgeleaf.student import load_sentence_transformer, save_student

    model = load_sentence_transformer(source, max_length=max_length)
    kinds = [type(part).__name__ for part in model]
    unknown = [kind for kind in kinds if kind not in {"Transformer", "Pooling", "Dense", "Normalize"}]
    if unknown or kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelError(
            f"{source} is made of {', '.join(kinds)}; Transformer, Pooling, Dense, Normalize can be exported"
        )
    if kinds[-1] != "Normalize":
        model.append(Normalize())
    model.prompts = {"query": prompt, "document": ""}
    save_student(model, folder / layout.STUDENT)


def graph(folder: Path, student: Path, texts: Path) -> None:
    """Export the student to ``onnx/model.onnx`` and validate it against torch on real texts of several lengths."""
    from edgeleaf.graph.export import export_onnx, validate
    from edgeleaf.student import load_sentence_transformer

    progress.say("export: torch to ONNX")
    model = export_onnx(student / layout.STUDENT)
    words = " ".join(text.text for text in read(texts, "held_out")[:CHECK_QUERIES]).split()
    samples = [" ".join(words[:count]) for count in LADDER_LENGTHS]
    worst = validate(model, load_sentence_transformer(student / layout.STUDENT), samples)
    progress.say(f"export: names, axes, shapes and values hold; largest difference to torch {worst:.1e}")
    layout.write_bytes(folder / layout.ONNX_FP32, serialize(model))


def quantized(folder: Path, graph: Path) -> None:
    """Quantise ``onnx/model.onnx`` to ``onnx/model_qint8.onnx``, and say what was done in ``quantization.json``."""
    import onnx

    from edgeleaf.graph.quantize import quantize_int8

    result = quantize_int8(onnx.load(graph / layout.ONNX_FP32))
    data = serialize(result.model)
    layout.write_bytes(folder / layout.ONNX_INT8, data)
    facts = {
        "preset": "int8",
        "activations": "uint8, a scale a row, dynamic",
        "weights": "int8, symmetric, a scale a column",
        "tables": "int8, symmetric, a scale a row",
        "matmuls": result.matmuls,
        "embedding_tables": result.tables,
    }
    layout.write_json(folder / "quantization.json", facts)
    progress.say(f"quantise: {result.matmuls} matrices and {result.tables} tables, {len(data) / 1e6:.1f} MB")


def fused(folder: Path, quantized: Path, student: Path, space: VectorSpace, max_length: int) -> None:
    """Fuse tokenizer and prompt into the quantised graph: ``query_encoder.onnx``."""
    import onnx

    from edgeleaf.encoder import METADATA_SCHEMA, METADATA_SPACE
    from edgeleaf.graph.fuse import fuse

    progress.say("fuse: tokenizer into the graph")
    model = fuse(
        onnx.load(quantized / layout.ONNX_INT8),
        (student / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8"),
        max_length=max_length,
        prompt=space.query_prompt,
        metadata={
            METADATA_SPACE: json.dumps(asdict(space), sort_keys=True),
            METADATA_SCHEMA: str(layout.SCHEMA_VERSION),
        },
    )
    layout.write_bytes(folder / layout.QUERY_ENCODER, serialize(model))


def assembled(
    folder: Path, student: Path, graph: Path, quantized: Path, fused: Path, texts: Path, manifest: Manifest
) -> None:
    """Put student, graphs, fused file and golden pack together, with a first manifest."""
    from dataclasses import replace

    from edgeleaf.golden import write_golden

    copy_tree(student / layout.STUDENT, folder / layout.STUDENT)
    copy_tree(graph / "onnx", folder / "onnx")
    copy_tree(quantized / "onnx", folder / "onnx")
    copy_tree(fused, folder, leave="stage.json")
    queries = [text.text for text in read(texts, "held_out") if text.kind == "query"]
    write_golden(folder, queries, max_length=int(manifest.tokenizer["max_length"]), prompt=manifest.space.query_prompt)
    files = {name: digest for name, digest in layout.hash_files(folder).items() if name != "stage.json"}
    replace(manifest, files=files).write(folder)


def tokenizer_facts(student: Path, max_length: int) -> dict[str, Any]:
    """Return what the manifest says of the tokenizer."""
    path = student / layout.STUDENT / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    return {
        "type": model.get("type", "unknown"),
        "vocabulary": len(model["vocab"]),
        "max_length": max_length,
        "sha256": layout.sha256(path),
    }


def certify_bundle(bundle: Path, texts: Path, vectors: Path, space: VectorSpace, gates: Gates) -> Certificate:
    """Measure a bundle against the teacher on held-out texts."""
    from edgeleaf.certify import certify

    held_out = read(texts, "held_out")
    matrix = np.load(vectors / "held_out.npy").astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    is_query = np.array([text.kind == "query" for text in held_out])
    return certify(
        bundle,
        queries=[text.text for text in held_out if text.kind == "query"],
        teacher_queries=matrix[is_query],
        documents=[text.text for text in held_out if text.kind == "document"],
        teacher_documents=matrix[~is_query],
        gates=gates,
        query_prompt=space.query_prompt,
        space={"id": space.id, **asdict(space)},
    )


def write_certificate(certificate: Certificate, folder: Path) -> None:
    """Write ``certificate.json`` and ``certificate.html``."""
    from edgeleaf.certify import write

    write(certificate, folder)


def read_certificate(folder: Path) -> Certificate:
    """Read ``certificate.json``."""
    from edgeleaf.certify import Certificate

    return Certificate.read(folder / layout.CERTIFICATE)


def find_teacher(manifest: Manifest) -> Path | None:
    """Return the folder of a bundle's teacher, or None (and say so) where it is out of reach."""
    try:
        return models.resolve(manifest.space.teacher, revision=manifest.space.revision)
    except ModelError as error:
        progress.say(f"the teacher is not measured: {error}")
        return None


def benchmark(bundle: Path, spec: BenchmarkSpec, *, teacher: Path | None, torch_student: bool) -> dict[str, Any]:
    """Measure latency from the string and write ``latency.json`` into the bundle."""
    return _measure(bundle, bundle, spec, teacher, torch_student)


def benchmark_into(folder: Path, bundle: Path, spec: BenchmarkSpec, teacher: Path | None, torch_student: bool) -> None:
    """Measure the bundle, and write ``latency.json`` into ``folder``."""
    _measure(folder, bundle, spec, teacher, torch_student)


def _measure(
    folder: Path, bundle: Path, spec: BenchmarkSpec, teacher: Path | None, torch_student: bool
) -> dict[str, Any]:
    from edgeleaf import latency

    prompt = Manifest.read(bundle).space.query_prompt
    report = latency.measure(
        bundle,
        query_prompt=prompt,
        teacher_prompt=prompt,
        threads=spec.threads,
        lengths=spec.lengths,
        repeats=spec.repeats,
        teacher=str(teacher) if teacher else None,
        include_student=torch_student,
    )
    latency.write(report, folder)
    return report


def serialize(model: Any) -> bytes:
    """Return a model's bytes, the same for the same model."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def copy_tree(source: Path, target: Path, *, leave: str = "") -> None:
    """Copy files into ``target``, as hard links where the disk allows; nothing here is ever written in place."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name != leave:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.unlink(missing_ok=True)
            try:
                os.link(path, copy)
            except OSError:
                shutil.copyfile(path, copy)


def version() -> str:
    """Return edgeleaf's version."""
    from edgeleaf import __version__

    return __version__
