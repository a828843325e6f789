"""Find and open the teacher that a recipe or a bundle names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edgeleaf import progress
from edgeleaf.bundle.manifest import Manifest, VectorSpace
from edgeleaf.errors import ModelError
from edgeleaf.recipe.specs import TeacherSpec

if TYPE_CHECKING:
    from edgeleaf.teachers.base import Teacher
    from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher


def load_teacher(spec: TeacherSpec) -> SentenceTransformerTeacher:
    """Find and load the teacher of a recipe."""
    from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher

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
