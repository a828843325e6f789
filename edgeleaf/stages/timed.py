"""Measures the latency of a bundle on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeleaf import progress
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import ModelError
from edgeleaf.models.resolve import resolve
from edgeleaf.models.safety import check_model
from edgeleaf.recipe.specs import BenchmarkSpec
from edgeleaf.teachers.opening import DEFAULT, check_files, teacher_spec


def find_teacher(manifest: Manifest) -> Path | None:
    """Return the folder of a bundle's teacher; None, with a warning, if it cannot be timed or is a different model."""
    if teacher_spec(manifest).kind != DEFAULT:
        progress.warn(f"the teacher is not measured: {manifest.space.teacher} is not a sentence-transformers model")
        return None
    try:
        folder = resolve(manifest.space.teacher, revision=manifest.space.revision)
        check_files(folder, manifest.space)
        check_model(folder)
        return folder
    except ModelError as error:
        progress.warn(f"the teacher is not measured: {error}")
        return None


def benchmark(bundle: Path, *, spec: BenchmarkSpec, teacher: Path | None, torch_student: bool) -> dict[str, Any]:
    """Measure a bundle's latency from the string."""
    from edgeleaf.latency.measure import measure

    prompt = Manifest.read(bundle).space.query_prompt
    return measure(
        bundle,
        query_prompt=prompt,
        teacher_prompt=prompt,
        threads=spec.threads,
        lengths=spec.lengths,
        repeats=spec.repeats,
        teacher=str(teacher) if teacher else None,
        include_student=torch_student,
    )
