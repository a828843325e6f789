"""Measures the effect of onnxruntime's settings and file formats on a fused file: time, load and memory.

    python -m bench.studies.settings BUNDLE -o out/settings [--quick]

Every setting has a process of its own, and they take turns like the peers of bench.peers.run. Writes
``settings.json``, raw times included, and ``settings.md``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from bench.peers.environments import ADAPTERS
from bench.peers.figures import MIDDLE, OURS, SHORT, Figures, number
from bench.peers.noise import Noise, warnings
from bench.peers.run import FULL, QUICK
from bench.tables import markdown_table
from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.machine import machine
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import EdgeleafError
from edgeleaf.files import write_json
from edgeleaf.latency import report
from edgeleaf.latency.measure import QUERY_LENGTHS, THREADS, golden_texts
from edgeleaf.latency.process import System, builtin, started
from edgeleaf.latency.report import add_percentiles, measurement_warnings
from edgeleaf.latency.runner import Plan, steps_of, take_turns

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Args:
        name: its name in the record.
        title: its name for people.
        file: the form of the fused file, made by :func:`write_files`.
        session: attributes of ``onnxruntime.SessionOptions``.
        entries: further entries, for ``add_session_config_entry``.
        environment: environment variables of the process.
    """

    name: str
    title: str
    file: str = layout.QUERY_ENCODER
    session: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def system(self, folder: Path) -> System:
        options = {"session": dict(self.session), "entries": dict(self.entries)}
        command = builtin(str(ADAPTERS / "tuned.py"))
        path = str(folder / self.file)
        return System(self.name, self.title, command, path, options=options, environment=self.environment)


OPTIMISED, FLATBUFFERS, TWO_FILES = "optimised.onnx", "optimised.ort", "two_files.onnx"
NOT_AGAIN = {"graph_optimization_level": "ORT_DISABLE_ALL"}
SETTINGS = (
    Setting(OURS, "as it ships"),
    Setting("still", "threads do not spin", entries={"session.intra_op.allow_spinning": "0"}),
    Setting("no-arena", "no arena", session={"enable_cpu_mem_arena": False}),
    Setting("no-pattern", "no memory pattern", session={"enable_mem_pattern": False}),
    Setting("no-reuse", "buffers are not used again", session={"enable_mem_reuse": False}),
    Setting("no-prepacking", "weights are not packed", entries={"session.disable_prepacking": "1"}),
    Setting("denormals", "denormals are zero", entries={"session.set_denormal_as_zero": "1"}),
    Setting("as-written", "graph as written, not optimised", session=NOT_AGAIN),
    Setting("ahead", "graph optimised ahead of time", OPTIMISED, session=NOT_AGAIN),
    Setting("flatbuffers", "the same in .ort format", FLATBUFFERS),
    Setting("two-files", "weights in a second file, mapped", TWO_FILES),
    Setting(
        "huge-pages", "huge pages (glibc.malloc.hugetlb=1)", environment={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    ),
)


def write_files(fused: Path, folder: Path) -> None:
    """Write the files that settings load: the fused file, optimised for this processor, and in other formats."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(fused, folder / layout.QUERY_ENCODER)
    (folder / "weights.bin").unlink(missing_ok=True)
    whole = {"save_as_external_data": True, "all_tensors_to_one_file": True, "location": "weights.bin"}
    onnx.save(onnx.load(str(fused)), str(folder / TWO_FILES), **whole)
    for name in (OPTIMISED, FLATBUFFERS):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(folder / name)
        ort.InferenceSession(str(fused), options, providers=["CPUExecutionProvider"])


def measure(
    bundle: Path, folder: Path, *, settings: Sequence[Setting] = SETTINGS, plan: Mapping[str, Any]
) -> dict[str, Any]:
    """Measure settings in one run.

    Args:
        bundle: a bundle folder.
        folder: receives the files that are loaded.
        settings: the settings; the others are compared with the first.
        plan: repeats, sessions, visits and their length.

    Returns:
        A record: schema version, machine, settings, ``noise``, ``systems`` as
        :func:`edgeleaf.latency.runner.run` returns them, ``peers`` (titles, and ``same``: whether vectors equal
        those of the first, bit by bit), ``absent`` (what failed, and why) and notes.
    """
    manifest = Manifest.read(bundle)
    manifest.verify(bundle, layout.QUERY_ENCODER, layout.GOLDEN)
    write_files(bundle / layout.QUERY_ENCODER, folder)
    texts, notes = golden_texts(bundle, QUERY_LENGTHS)
    whole = Plan(threads=THREADS, texts=texts, **plan)
    every = [text for found in texts.values() for text in found]
    vectors, absent = dict[str, Any](), dict[str, str]()
    for setting in settings:
        try:
            with started(setting.system(folder), threads=1) as worker:
                vectors[setting.name] = worker.vectors(every, worker.load(every[0])["dim"])
        except EdgeleafError as error:
            absent[setting.name] = str(error)
            progress.say(f"{setting.title} is left out: {error}")
    systems = [setting.system(folder) for setting in settings if setting.name in vectors]
    noise = Noise()
    with progress.bar("settings taking turns", steps_of(systems, whole)) as advance:
        records = take_turns(systems, whole, advance=advance, between=noise.look)
    for record in records:
        add_percentiles(record)
    first = vectors[settings[0].name]
    titles = {setting.name: setting.title for setting in settings if setting.name in vectors}
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine(),
        "settings": report.settings(whole),
        "noise": noise.report(),
        "peers": {
            name: {"title": title, "same": bool(np.array_equal(vectors[name], first))} for name, title in titles.items()
        },
        "absent": absent,
        "notes": [*notes, *warnings(noise.report()), *measurement_warnings(records, whole.repeats, titles)],
        "systems": records,
    }


def table(results: Mapping[str, Any]) -> str:
    """Return Markdown with one row per setting; times relative to the first row, with 95% intervals."""
    figures = Figures(results)
    rows = []
    for name in figures.names:
        ratios = [figures.p50_ratio(OURS, tokens, ours=name) for tokens in SHORT]
        rows.append(
            [
                figures.title(name),
                *(f"{ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" for ratio in ratios),
                *(f"{figures.p50(name, MIDDLE, threads):.2f}" for threads in figures.threads),
                number(figures.median(name, "load_ms")),
                number(figures.median(name, "peak_rss_mb")),
                "same" if results["peers"][name]["same"] else "others",
            ]
        )
    times = [f"p50, {MIDDLE} tokens, {threads} thread{'s' * (threads > 1)}, ms" for threads in figures.threads]
    columns = [
        "",
        *(f"of the first, {tokens} tokens" for tokens in SHORT),
        *times,
        "load, ms",
        "peak memory, MB",
        "vectors",
    ]
    lines = [markdown_table(columns, rows)]
    lines += [f"- left out: {name}: {why}" for name, why in results["absent"].items()]
    lines += [f"- {note}" for note in results["notes"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--quick", action="store_true", help="few repeats, to see that everything works")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    progress.show()
    output = given.output.resolve()
    try:
        results = measure(given.bundle.resolve(), output / "files", plan=QUICK if given.quick else FULL)
    except EdgeleafError as error:
        sys.exit(str(error))
    write_json(output / "settings.json", results)
    (output / "settings.md").write_text(table(results), encoding="utf-8")
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
