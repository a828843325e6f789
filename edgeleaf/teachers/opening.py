"""Finds and opens the teacher that a recipe or a bundle names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeleaf import progress
from edgeleaf.bundle.manifest import Manifest, VectorSpace
from edgeleaf.errors import ModelError, RecipeError
from edgeleaf.models.resolve import resolve
from edgeleaf.models.weights import tokenizer_sha256, weights_sha256
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.records import shown

if TYPE_CHECKING:
    from edgeleaf.teachers.base import Teacher
    from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher


def _sentence_transformer(spec: TeacherSpec) -> SentenceTransformerTeacher:
    from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher

    return SentenceTransformerTeacher(spec)


KINDS: Mapping[str, Callable[[TeacherSpec], SentenceTransformerTeacher]] = {
    "sentence-transformers": _sentence_transformer,
}
"""How each kind of teacher is opened, by ``teacher.kind`` of a recipe. To add a kind, add a module and a row here."""


def check_kind(spec: TeacherSpec) -> None:
    """Raise RecipeError if the kind of a recipe's teacher is not in :data:`KINDS`."""
    if spec.kind not in KINDS:
        raise RecipeError(f"teacher.kind is {shown(spec.kind)}; allowed: {', '.join(map(shown, KINDS))}")


def load_teacher(spec: TeacherSpec) -> SentenceTransformerTeacher:
    """Find and load the teacher of a recipe.

    Raises:
        RecipeError: no such kind of teacher.
        ModelError, MissingExtra: the teacher is not available.
    """
    check_kind(spec)
    progress.say(f"teacher: {spec.model}")
    return KINDS[spec.kind](spec)


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
    """Load the teacher that a bundle's vector space names, after comparing its files with the hashes in the space.

    Raises:
        ModelError: it cannot be found, or the model found under its name has other weights, another tokenizer, or code
            of its own, which is never run for a bundle.
    """
    return open_teacher(teacher_spec(manifest), manifest.space)


def open_teacher(spec: TeacherSpec, space: VectorSpace) -> SentenceTransformerTeacher:
    """Load a teacher and check that it has the given space; see :func:`teacher_of`."""
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
    if different := [key for key in own.keys() & said.keys() if own[key] != said[key]]:
        raise ModelError(
            f"{space.teacher}: {different[0]} is {shown(own[different[0]])}, the bundle's space has "
            f"{shown(said[different[0]])}; put that teacher's folder in its place"
        )
