"""What each stage of the pipeline does: a folder is filled from folders. No step knows which comes before or after."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeleaf import bundle as layout
from edgeleaf import models, progress
from edgeleaf.bundle import Manifest, VectorSpace
from edgeleaf.errors import InputError, MissingExtra, ModelError, TokenizerNotSupported, TrainingError
from edgeleaf.recipe import Recipe, StudentSpec, TeacherSpec, TextsSpec
from edgeleaf.texts import Text, collect, read_texts, write_corpus

if TYPE_CHECKING:
    from edgeleaf.teacher import SentenceTransformerTeacher, Teacher

VECTOR_CACHE = "vector-cache"
QUANTIZATION = "quantization.json"
START_TEXTS = 4096
"""Training texts that the projection's closed-form start is fitted on."""
EVALUATED = 256
"""Held-out queries by which training is watched."""
CALIBRATION_TEXTS = 6000
"""Training texts that the quantiser sees."""
BITS = {"int8": 8, "int4": 4}
WEIGHTS = {
    "int8": "int8, a scale a column of a matrix and a row of a table; errors compensated",
    "int4": "4 bits, a scale 16 rows of a matrix and 32 columns of a table; errors compensated; unpacked to int8",
}
LADDER_LENGTHS = (1, 5, 20, 60, 200)
"""Words of the texts that the exported graph is compared with torch on."""
LADDER_TEXTS = 1000
"""Held-out texts whose words those are."""


def require_distill() -> None:
    """Raise MissingExtra where the packages that build and check bundles are not installed."""
    needed = ("torch", "sentence_transformers", "optimum", "onnx", "datasets", "accelerate", "matplotlib", "jinja2")
    missing = [name for name in (*needed, "filelock") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"{', '.join(missing)} not installed; to build and check: pip install 'edgeleaf[distill]'")


def load_teacher(spec: TeacherSpec) -> SentenceTransformerTeacher:
    """Find and load the teacher of a recipe."""
    from edgeleaf.teacher import SentenceTransformerTeacher

    progress.say(f"teacher: {spec.model}")
    return SentenceTransformerTeacher(spec)


def teacher_spec(manifest: Manifest, *, training_vectors: Literal["exact", "int8"] = "exact") -> TeacherSpec:
    """Describe the teacher that a bundle's vector space names."""
    space = manifest.space
    return TeacherSpec(
        model=space.teacher,
        revision=space.revision,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
        max_length=manifest.teacher_max_length,
        training_vectors=training_vectors,
    )


def teacher_of(manifest: Manifest) -> SentenceTransformerTeacher:
    """Load the teacher that a bundle's vector space names.

    Raises:
        ModelError: it cannot be found, or what is found under its name has other weights.
    """
    teacher = load_teacher(teacher_spec(manifest))
    check_space(teacher, manifest.space)
    return teacher


def check_space(teacher: Teacher, space: VectorSpace) -> None:
    """Raise ModelError where a teacher has other weights than the one that a bundle's space is named after."""
    if teacher.space.weights_sha256 != space.weights_sha256:
        raise ModelError(
            f"{space.teacher}: weights {teacher.space.weights_sha256[:12]}…, the bundle's space has "
            f"{space.weights_sha256[:12]}…; put that teacher's folder in its place"
        )


def check_tokenizer(spec: StudentSpec | TeacherSpec, *, prompt: str) -> None:
    """Find out before the long work whether a model's tokenizer can be fused at all.

    Raises:
        TokenizerNotSupported, ExportError: it cannot; the message names what stands in the way.
        ModelError: the model, or its tokenizer, cannot be had.
    """
    from transformers import AutoTokenizer

    from edgeleaf.graph.builder import GraphBuilder, TensorProto
    from edgeleaf.graph.tokenizers import append_tokenizer, reference_tokenizer
    from edgeleaf.student import shipped_tokenizer

    model, max_length = spec.model, spec.max_length
    folder = models.resolve(model, revision=spec.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{model}: its tokenizer cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if not tokenizer.is_fast:
        raise TokenizerNotSupported(f"{model} has no tokenizer.json; give a model with a fast tokenizer")
    settings = shipped_tokenizer(tokenizer, max_length).to_str()
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


def read(folder: Path, name: str) -> list[Text]:
    """Return the texts ``train`` or ``held_out`` of a texts folder."""
    return read_texts(folder / f"{name}.jsonl")


def look_at_texts(texts: Path, recipe: Recipe, teacher: SentenceTransformerTeacher) -> None:
    """Say how many training texts a window cuts off; before the long work.

    Raises:
        TextsError: a held-out text is among the training texts.
    """
    from transformers import AutoTokenizer

    from edgeleaf.distillation.guards import SAMPLE, check_apart, say_cut

    train = read(texts, "train")
    check_apart([text.text for text in train], [text.text for text in read(texts, "held_out")])
    prompts = {"query": recipe.teacher.query_prompt, "document": recipe.teacher.document_prompt}
    sample = [prompts[text.kind] + text.text for text in train[:SAMPLE]]
    start = models.resolve(recipe.student.model, revision=recipe.student.revision)
    for who, folder, window in (
        ("teacher", teacher.folder, recipe.teacher.max_length),
        ("student", start, recipe.student.max_length),
    ):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        say_cut(sample, tokenizer, window, who=who)


def quantized_teacher(folder: Path, texts: Path, teacher: SentenceTransformerTeacher, spec: TeacherSpec) -> None:
    """Write the int8 export of a teacher, for :class:`edgeleaf.quantized_teacher.QuantizedTeacher`."""
    from edgeleaf.quantized_teacher import write_quantized_teacher

    write_quantized_teacher(folder, teacher, spec, read(texts, "train"))


def vectors(folder: Path, texts: Path, teacher: Teacher, cache: Path, *, names: Sequence[str]) -> None:
    """Write a teacher's vectors of each set of texts: ``train.npy``, ``held_out.npy``, float16 [n, dim]."""
    from edgeleaf.teacher import teacher_vectors

    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        np.save(folder / f"{name}.npy", teacher_vectors(read(texts, name), teacher, cache))


def student(folder: Path, texts: Path, vectors: Path, recipe: Recipe, space: VectorSpace) -> None:
    """Distil a student into ``student/``; resumes from the checkpoints of a killed run."""
    from edgeleaf.distillation.trainer import Examples, has_checkpoint, train, write_student
    from edgeleaf.student import build_student, start_projection

    checkpoints = folder / "checkpoints"
    if (folder / layout.STUDENT).is_dir():
        shutil.rmtree(checkpoints, ignore_errors=True)
        return
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
        pooling=spec.pooling,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
    )
    train_set = examples("train", ("query", "document"))
    if not has_checkpoint(checkpoints):
        start_projection(model, train_set.texts[:START_TEXTS], train_set.vectors[:START_TEXTS], ridge=spec.ridge)
    held_out = examples("held_out", ("query",), EVALUATED)
    try:
        curve = train(model, train_set, held_out, objective=recipe.objective, seed=recipe.seed, checkpoints=checkpoints)
    except TrainingError:
        shutil.rmtree(checkpoints, ignore_errors=True)  # or the next run would go on from what went wrong
        raise
    write_student(model, curve, folder / layout.STUDENT)
    shutil.rmtree(checkpoints, ignore_errors=True)


def export_spec(
    name: str, *, max_length: int | None, query_prompt: str | None, prompt_name: str | None = None
) -> TeacherSpec:
    """Describe a model that is exported as it is: its window and prompts, where none are given.

    Raises:
        ModelError: the model cannot be had, or has no prompt of that name.
        InputError: a prompt and a prompt's name are both given.
    """
    from edgeleaf.student import load_sentence_transformer

    if query_prompt is not None and prompt_name is not None:
        raise InputError("a prompt and the name of a prompt are both given; give one of --prompt and --prompt-name")
    model = load_sentence_transformer(models.resolve(name), max_length=max_length)
    if prompt_name is not None:
        named = {key: prompt for key, prompt in model.prompts.items() if prompt}
        if prompt_name not in named:
            known = ", ".join(sorted(named)) or "none"
            raise ModelError(f"{name} has no prompt named {prompt_name!r}; its prompts: {known}")
        query_prompt = named[prompt_name]
    document_prompts = (model.prompts.get(key) for key in ("document", "passage"))
    return TeacherSpec(
        model=name,
        max_length=int(model.max_seq_length),
        query_prompt=query_prompt if query_prompt is not None else model.prompts.get("query") or "",
        document_prompt=next((prompt for prompt in document_prompts if prompt), ""),
    )


def normalized_copy(folder: Path, source: Path, spec: TeacherSpec) -> None:
    """Write the model into ``student/`` with a final Normalize, its window and its prompts.

    Raises:
        ModelError: it is made of other modules than can be exported, or pools without its prompt.
    """
    from sentence_transformers.models import Normalize

    from edgeleaf.student import load_sentence_transformer, save_student

    model = load_sentence_transformer(source, max_length=spec.max_length)
    kinds = [type(part).__name__ for part in model]
    if kinds[:2] != ["Transformer", "Pooling"] or not {*kinds[2:]} <= {"Dense", "Normalize"}:
        raise ModelError(
            f"{spec.model} is made of {', '.join(kinds)}; Transformer, Pooling, Dense, Normalize can be exported"
        )
    if spec.query_prompt and not getattr(model[1], "include_prompt", True):
        raise ModelError(
            f"{spec.model} leaves its prompt out of the pooling; only a pooling over all tokens is exported"
        )
    if kinds[-1] != "Normalize":
        model.append(Normalize())
    model.prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
    model.default_prompt_name = None
    save_student(model, folder / layout.STUDENT)


def graph(folder: Path, student: Path, texts: Path) -> None:
    """Export the student to ``onnx/model.onnx`` and validate it against torch on real texts of several lengths."""
    from edgeleaf.graph.export import export_onnx, validate
    from edgeleaf.student import load_sentence_transformer

    progress.say("export: torch to ONNX")
    model = export_onnx(student / layout.STUDENT)
    words = " ".join(text.text for text in read(texts, "held_out")[:LADDER_TEXTS]).split()
    samples = [" ".join(words[:count]) for count in LADDER_LENGTHS]
    worst = validate(model, load_sentence_transformer(student / layout.STUDENT), samples)
    progress.say(f"export: names, axes, shapes and values hold; largest difference to torch {worst:.1e}")
    layout.write_bytes(folder / layout.ONNX_FP32, serialize(model))


def quantized(
    folder: Path, graph: Path, texts: Path, student: Path, space: VectorSpace, max_length: int, preset: str
) -> None:
    """Quantise ``onnx/model.onnx`` by a preset, and say what was done in ``quantization.json``."""
    import onnx

    from edgeleaf.graph.half import to_half
    from edgeleaf.graph.quantize import quantize
    from edgeleaf.graph.tokenizers import reference_tokenizer

    facts: dict[str, Any] = {"preset": preset}
    if preset in ("fp32", "fp16"):
        if preset == "fp16":
            half = to_half(onnx.load(graph / layout.ONNX_FP32))
            layout.write_bytes(folder / layout.QUANTIZED[preset], serialize(half))
        layout.write_json(folder / QUANTIZATION, facts)
        return
    settings = (student / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8")
    prompts = {"query": space.query_prompt, "document": space.document_prompt}
    calibration = [prompts[text.kind] + text.text for text in read(texts, "train")[:CALIBRATION_TEXTS]]
    encodings = reference_tokenizer(settings, max_length).encode_batch(calibration)
    ids = [encoding.ids for encoding in encodings]
    result = quantize(onnx.load(graph / layout.ONNX_FP32), ids, bits=BITS[preset])
    data = serialize(result.model)
    layout.write_bytes(folder / layout.QUANTIZED[preset], data)
    facts |= {
        "weights": WEIGHTS[preset],
        "activations": "uint8, scales fixed on texts where numbers are bounded, a scale a token elsewhere",
        "calibration_texts": len(calibration),
        "fixed": result.fixed,
        "running": result.running,
        "embedding_tables": result.tables,
    }
    layout.write_json(folder / QUANTIZATION, facts)
    layers = result.fixed + result.running
    progress.say(f"quantise: {layers} layers and {result.tables} tables, {len(data) / 1e6:.1f} MB")


def fused(folder: Path, graph: Path, quantized: Path, student: Path, space: VectorSpace, max_length: int) -> None:
    """Fuse tokenizer and prompt into the quantised graph, the exported one if there is none: ``query_encoder.onnx``."""
    import onnx

    from edgeleaf.encoder import METADATA_SCHEMA, METADATA_SPACE, METADATA_WINDOW
    from edgeleaf.graph.fuse import fuse

    progress.say("fuse: tokenizer into the graph")
    model = fuse(
        onnx.load(layout.quantized_onnx(quantized) or graph / layout.ONNX_FP32),
        (student / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8"),
        max_length=max_length,
        prompt=space.query_prompt,
        metadata={
            METADATA_SPACE: json.dumps(asdict(space), sort_keys=True),
            METADATA_SCHEMA: str(layout.SCHEMA_VERSION),
            METADATA_WINDOW: str(max_length),
        },
    )
    layout.write_bytes(folder / layout.QUERY_ENCODER, serialize(model))


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


def serialize(model: Any) -> bytes:
    """Return a model's bytes, the same for the same model."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def link_tree(source: Path, target: Path, *, leave: Sequence[str] = ()) -> None:
    """Put the files of one stage into another's folder: hard links, or copies where the disk has none."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name not in leave:
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            try:
                os.link(path, link)
            except OSError:
                shutil.copyfile(path, link)
