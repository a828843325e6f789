"""Measure a bundle's latency again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.extras import require
from edgeleaf.files import whole_folder
from edgeleaf.latency.report import write_latency
from edgeleaf.pipeline.places import open_bundle, report_folder
from edgeleaf.recipe.specs import BenchmarkSpec
from edgeleaf.stages.timed import benchmark, find_teacher


def bench(
    bundle: str | Path, *, repeats: int | None = None, alone: bool = False, output: str | Path | None = None
) -> dict[str, Any]:
    """Measure a bundle's latency from the string on this machine. The bundle is not changed.

    Args:
        bundle: a bundle folder.
        repeats: timed calls per length; None means 100.
        alone: measure the fused file only: no teacher, no torch.
        output: a new folder for ``latency.json``; None writes nothing.
    """
    folder, report = Path(bundle), report_folder(output)
    if alone:
        manifest = Manifest.read(folder)
        manifest.verify(folder, layout.QUERY_ENCODER, layout.GOLDEN)
    else:
        require("bench", instead="edgeleaf bench --alone for the fused file by itself")
        manifest = open_bundle(folder)
    spec = BenchmarkSpec()
    measured = benchmark(
        folder,
        spec=replace(spec, repeats=repeats or spec.repeats),
        teacher=None if alone else find_teacher(manifest),
        torch_student=not alone,
    )
    if report is not None:
        with whole_folder(report) as new:
            write_latency(measured, new)
    return measured
