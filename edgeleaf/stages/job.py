"""Describes a bundle to ship, and the limits that it must meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.recipe.specs import BenchmarkSpec, Gates


@dataclass(frozen=True)
class Job:
    """A bundle to ship, and the limits that it must meet.

    Args:
        name, description: of the recipe, or of the exported model.
        space: the vector space of the outputs.
        teacher: the teacher's folder, to time it beside the student; None if it is not a sentence-transformers model.
        teacher_max_length, max_length: windows of teacher and student in tokens.
        made_by: how the student was made, for the manifest.
        origin: the source of the texts that it is checked with.
        gates, benchmark: these parts of the recipe.
        exporter: what exports the graph, see :data:`edgeleaf.graph.exporters.EXPORTERS`.
        preset: how the graph is quantised, see ``edgeleaf.recipe.specs.QuantizationSpec``.
        processors: processors to compare with this one, by their names in ``edgeleaf.emulation``.
        torch_student: whether the student is timed beside its teacher; an exported model is its own teacher.
    """

    name: str
    description: str
    space: VectorSpace
    teacher: Path | None
    teacher_max_length: int
    max_length: int
    made_by: Mapping[str, Any]
    origin: str
    gates: Gates
    benchmark: BenchmarkSpec
    exporter: str
    preset: str
    processors: Sequence[str] = ()
    torch_student: bool = True
