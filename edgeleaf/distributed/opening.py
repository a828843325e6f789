"""Opens on a worker the teacher that the driver has. A worker gets this description, not the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.models.resolve import identity
from edgeleaf.recipe.specs import TeacherSpec

if TYPE_CHECKING:
    from edgeleaf.teachers.base import Encodes


@dataclass(frozen=True)
class Opening:
    """How a worker opens a teacher; called there, it returns the teacher.

    Args:
        spec: the teacher. A local folder must be at the same path on every machine.
        space: the space that it must have.
        max_length: how many tokens of a text it reads.
        bundle: whether the teacher is a bundle's, whose files are checked before anything in them is loaded.
        exported: the folder of the teacher's int8 export, if that encodes.

    Raises:
        ModelError: from the call, if the worker does not find that teacher.
    """

    spec: TeacherSpec
    space: VectorSpace
    max_length: int
    bundle: bool = False
    exported: Path | None = None

    def __call__(self) -> Encodes:
        from edgeleaf.teachers.opening import check_space, load_teacher, open_teacher
        from edgeleaf.teachers.quantized import QuantizedTeacher
        from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher

        spec = replace(self.spec, model=identity(self.spec.model))
        teacher = open_teacher(spec, self.space) if self.bundle else load_teacher(spec)
        check_space(teacher, self.space)
        if teacher.max_length != self.max_length:
            teacher.widened(at_least=self.max_length)
        if self.exported is None:
            return teacher
        assert isinstance(teacher, SentenceTransformerTeacher)  # the one kind that has such an export
        return QuantizedTeacher(teacher, self.spec, self.exported)
