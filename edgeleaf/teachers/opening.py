"""Finds and opens the teacher that a recipe or a bundle names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeleaf import progress
from edgeleaf.bundle.manifest import Manifest, VectorSpace
from edgeleaf.bundle.space import AROUND
from edgeleaf.errors import BundleError, ModelError, RecipeError
from edgeleaf.models.resolve import resolve
from edgeleaf.models.weights import tokenizer_sha256, weights_sha256
from edgeleaf.recipe.teachers import Example, HttpSpec, TeacherSpec
from edgeleaf.records import RecordError, record, shown
from edgeleaf.teachers.around import TEXT, around_of

if TYPE_CHECKING:
    from edgeleaf.teachers.base import Teacher


@dataclass(frozen=True)
class TeacherKind:
    """A kind of teacher.

    Args:
        module: the module whose ``load(spec)`` opens it.
        keys: the keys of ``[teacher]`` that it takes besides those that every kind takes.
        has_weights: whether it is a model whose weight files are compared with a bundle's before they are loaded.
    """

    module: str
    keys: frozenset[str] = frozenset()
    has_weights: bool = True


DEFAULT, PRECOMPUTED = "sentence-transformers", "precomputed"
KINDS: Mapping[str, TeacherKind] = {
    DEFAULT: TeacherKind(
        "edgeleaf.teachers.sentence_transformer", frozenset({"training_vectors", "trust_remote_code"})
    ),
    "decoder": TeacherKind(
        "edgeleaf.teachers.decoder",
        frozenset({"attention", "pooling", "query_template", "document_template", "instruction", "examples"})
        | {"bos_token", "eos_token", "dims"},
    ),
    "onnx": TeacherKind("edgeleaf.teachers.onnx", frozenset({"file", "pooling", "dims"}), has_weights=False),
    PRECOMPUTED: TeacherKind("edgeleaf.teachers.precomputed", has_weights=False),
    "http": TeacherKind("edgeleaf.teachers.http.teacher", frozenset({"http", "dims"}), has_weights=False),
}
"""The kinds of teachers, by ``teacher.kind`` of a recipe. To add a kind, add a module and a row here."""
_EVERY = frozenset({"model", "revision", "query_prompt", "document_prompt", "kind", "max_length"})


@dataclass(frozen=True)
class Access:
    """What a bundle's manifest records, beside the space, about a teacher that is not of the kind :data:`DEFAULT`."""

    kind: str
    examples: tuple[Example, ...] | None = None
    file: str | None = None
    http: HttpSpec | None = None
    vectors: str | None = None
    """precomputed: the folder of vectors."""


def check_kind(spec: TeacherSpec) -> None:
    """Check what can be checked of a recipe's teacher without opening it.

    Raises:
        RecipeError: its kind is not in :data:`KINDS`; a key that the kind does not take; a template that makes no
            sense.
    """
    if spec.kind not in KINDS:
        raise RecipeError(f"teacher.kind is {shown(spec.kind)}; allowed: {', '.join(map(shown, KINDS))}")
    takes = _EVERY | KINDS[spec.kind].keys
    for field in fields(spec):
        if field.name not in takes and getattr(spec, field.name) != field.default:
            others = [name for name, kind in KINDS.items() if field.name in kind.keys]
            raise RecipeError(
                f"teacher.{field.name} is not for the kind {shown(spec.kind)}, only for {', '.join(map(shown, others))}"
            )
    around_of(spec)


def student_prompt(spec: TeacherSpec) -> str:
    """Return the text that the teacher and its student put before a query."""
    return around_of(spec)["query"].prompt


def load_teacher(spec: TeacherSpec) -> Teacher:
    """Find and load the teacher of a recipe.

    Raises:
        RecipeError: no such kind of teacher, or a key that it does not take.
        ModelError, MissingExtra: the teacher is not available.
    """
    check_kind(spec)
    progress.say(f"teacher: {spec.model}")
    teacher: Teacher = importlib.import_module(KINDS[spec.kind].module).load(spec)
    return teacher


def access_of(spec: TeacherSpec) -> dict[str, Any]:
    """Return the manifest's entry about how a teacher is opened again; empty for the kind :data:`DEFAULT`."""
    if spec.kind == DEFAULT:
        return {}
    vectors = str(Path(spec.model).expanduser().resolve()) if spec.kind == PRECOMPUTED else None
    said = asdict(Access(spec.kind, spec.examples, spec.file, spec.http, vectors))
    return {"teacher": {key: value for key, value in said.items() if value is not None}}


def teacher_spec(manifest: Manifest, *, training_vectors: Literal["exact", "int8"] = "exact") -> TeacherSpec:
    """Describe the teacher that a bundle's vector space names.

    Raises:
        BundleError: the manifest's entry about the teacher is damaged, or of an edgeleaf that knows other kinds.
    """
    space = manifest.space
    spec = TeacherSpec(
        model=space.teacher,
        revision=space.revision,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
        max_length=manifest.teacher_max_length,
    )
    said = manifest.student.get("teacher")
    if said is None:
        return replace(spec, training_vectors=training_vectors)
    try:
        access = record(Access, said, where="student.teacher")
        if access.kind not in KINDS:
            raise RecordError(f"student.teacher.kind is {shown(access.kind)}; known here: {', '.join(KINDS)}")
    except RecordError as error:
        raise BundleError(f"{manifest.recipe}: damaged manifest ({error}); build or copy the bundle again") from None
    keys = KINDS[access.kind].keys
    if "query_template" in keys:
        spec = replace(
            spec,
            query_prompt="",
            document_prompt="",
            query_template=f"{space.query_prompt}{TEXT}{space.query_suffix or ''}",
            document_template=f"{space.document_prompt}{TEXT}{space.document_suffix or ''}",
            attention=space.attention,
            bos_token=space.bos_token,
            eos_token=space.eos_token,
        )
    if "pooling" in keys and space.pooling in _POOLINGS:
        spec = replace(spec, pooling=_POOLINGS[space.pooling])
    if "dims" in keys:
        spec = replace(spec, dims=space.dim)
    if access.kind == PRECOMPUTED:
        index = space.teacher != access.vectors  # an index says its own prompts, and the name of the teacher it is of
        spec = replace(spec, model=access.vectors or "", revision=None)
        spec = replace(spec, query_prompt="", document_prompt="") if index else spec
    return replace(spec, kind=access.kind, examples=access.examples, file=access.file, http=access.http)


_POOLINGS: Mapping[str, Literal["mean", "last", "cls"]] = {"mean": "mean", "lasttoken": "last", "cls": "cls"}


def teacher_of(manifest: Manifest) -> Teacher:
    """Load the teacher that a bundle's vector space names, after comparing its files with the hashes in the space.

    Raises:
        ModelError: it cannot be found, or the model found under its name has other weights, another tokenizer, or code
            of its own, which is never run for a bundle.
    """
    return open_teacher(teacher_spec(manifest), manifest.space)


def open_teacher(spec: TeacherSpec, space: VectorSpace) -> Teacher:
    """Load a teacher and check that it has the given space; see :func:`teacher_of`."""
    check_kind(spec)
    if spec.http is not None:
        from edgeleaf.teachers.http.teacher import check_allowed

        check_allowed(spec)
    if KINDS[spec.kind].has_weights:
        check_files(resolve(spec.model, revision=spec.revision), space)
    teacher = load_teacher(replace(spec, trust_remote_code=False))
    check_space(teacher, space)
    return teacher


def check_files(folder: Path, space: VectorSpace) -> None:
    """Compare a teacher's files with a space, before anything in them is loaded.

    Raises:
        ModelError: other weights, or another tokenizer if the space records its own.
    """
    found = {"weights": (weights_sha256(folder), space.weights_sha256)}
    if space.tokenizer_sha256 is not None:
        found["tokenizer"] = (tokenizer_sha256(folder) or "none", space.tokenizer_sha256)
    for what, (came, needed) in found.items():
        if came != needed:
            raise ModelError(
                f"{space.teacher}: {what} {came[:12]}…, the bundle's space has {needed[:12]}…; "
                "put that teacher's folder in its place"
            )


def check_space(teacher: Teacher, space: VectorSpace) -> None:
    """Raise ModelError if a teacher's space differs from a bundle's."""
    if teacher.space.weights_sha256 != space.weights_sha256:
        raise ModelError(
            f"{space.teacher}: weights {teacher.space.weights_sha256[:12]}…, the bundle's space has "
            f"{space.weights_sha256[:12]}…; put that teacher's folder in its place"
        )
    own, said = teacher.space.identity(), space.identity()
    compared = (own.keys() & said.keys()) | AROUND
    if different := sorted(key for key in compared if own.get(key) != said.get(key)):
        raise ModelError(
            f"{space.teacher}: {different[0]} is {shown(own.get(different[0]))}, the bundle's space has "
            f"{shown(said.get(different[0]))}; put that teacher's folder in its place"
        )
