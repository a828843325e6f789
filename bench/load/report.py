"""Makes bench/load/RESULTS.md and its plot: ``python -m bench.load.report RESULTS.json -o FOLDER``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers.noise import warnings
from bench.tables import markdown_table
from edgeleaf.quiet import matplotlib_files

COMMAND = "python -m bench.load.run export/models/mpnet -o out/load"


def middle(measured: Mapping[str, Any], server: str, connections: int, key: str) -> float:
    """Return the median of a figure over a server's turns."""
    return median(
        float(load[key])
        for turn in measured["turns"]
        if turn["server"] == server
        for load in turn["loads"]
        if load["connections"] == connections
    )


def errors(measured: Mapping[str, Any], server: str) -> int:
    """Return how many requests failed, in all turns together."""
    return sum(
        sum(load["errors"].values()) for turn in measured["turns"] if turn["server"] == server for load in turn["loads"]
    )


def report(measured: Mapping[str, Any]) -> str:
    """Return the page."""
    machine, plan = measured["machine"], measured["plan"]
    servers: Sequence[Mapping[str, Any]] = measured["servers"]
    parts = [
        "# Servers under load",
        f"`{COMMAND}`, then `python -m bench.load.report out/load/results.json -o bench/load`. "
        f"Machine: {machine['cores']} cores of an {machine['processor']}. wrk runs on the same cores. "
        f"Each server runs alone, in an environment of its own, and holds the same student, but for what a note says. "
        f"{plan['turns']} turns of {plan['seconds']:g} seconds at each number of connections, medians of the turns; "
        f"texts: queries, and one in five a document.",
    ]
    parts += [f"**Noise:** {line}" for line in warnings(measured["noise"])]
    for connections in plan["connections"]:
        rows = sorted(servers, key=lambda one: -middle(measured, one["name"], connections, "requests_a_second"))
        table = markdown_table(
            ("server", "requests a second", "p50, ms", "p99, ms", "processor, ms a request"),
            [
                (
                    one["title"],
                    f"{middle(measured, one['name'], connections, 'requests_a_second'):.0f}",
                    f"{middle(measured, one['name'], connections, 'p50_ms'):.1f}",
                    f"{middle(measured, one['name'], connections, 'p99_ms'):.1f}",
                    f"{middle(measured, one['name'], connections, 'processor_ms_a_request'):.2f}",
                )
                for one in rows
            ],
        )
        parts += [f"## {connections} connection{'s' if connections > 1 else ''}", table]
    costs = []
    for connections in plan["connections"]:
        whole = middle(measured, "edgeleaf", connections, "processor_ms_a_request")
        outside = middle(measured, "edgeleaf", connections, "outside_encoder_ms_a_request")
        encoding = whole - outside
        costs.append((str(connections), f"{encoding:.2f}", f"{outside:.2f}", f"{100 * outside / encoding:.0f}"))
    ends = []
    for one in servers:
        turns = [turn for turn in measured["turns"] if turn["server"] == one["name"]]
        cold = median(turn["cold_s"] for turn in turns)
        most = max(load["memory_mb"]["most"] for turn in turns for load in turn["loads"])
        close = one["cosine"]
        cosine = "" if close is None else f"{close['mean']:.3f} ({close['least']:.3f})"
        failed = str(errors(measured, one["name"]))
        ends.append((one["title"], cosine, f"{cold:.1f}", f"{most:.0f}", failed, one["note"]))
    parts += [
        "## What HTTP costs",
        "Processor time of `edgeleaf serve` a request, in its encoding threads (`/metrics` counts it) and outside of "
        "them: HTTP, JSON and the system's sockets.",
        markdown_table(("connections", "encoding, ms", "outside, ms", "outside, % of encoding"), costs),
        "## Fidelity, start, memory, errors",
        "Cosine of the server's vectors to the student's in torch: mean of 60 texts, and the least.",
        markdown_table(
            ("server", "cosine (least)", "to the first answer, s", "most memory, MB", "errors", "note"), ends
        ),
        "![](load.png)",
    ]
    if measured["absent"]:
        parts += ["Not measured: " + "; ".join(f"{name} ({why})" for name, why in measured["absent"].items())]
    return "\n\n".join(parts) + "\n"


def plot(measured: Mapping[str, Any], file: Path) -> None:
    """Draw requests a second and p99 over the number of connections."""
    matplotlib_files()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    connections = measured["plan"]["connections"]
    for one in measured["servers"]:
        style: dict[str, Any] = {"marker": "o", "linewidth": 2.4 if one["name"] == "edgeleaf" else 1.2}
        for axis, key in ((left, "requests_a_second"), (right, "p99_ms")):
            values = [middle(measured, one["name"], count, key) for count in connections]
            axis.plot(connections, values, label=one["title"], **style)
    for axis, title in ((left, "requests a second"), (right, "p99, ms")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(connections, [str(count) for count in connections])
        axis.set_xlabel("connections")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    right.set_yscale("log")
    left.set_ylim(bottom=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    measured = json.loads(given.results.read_text(encoding="utf-8"))
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "RESULTS.md").write_text(report(measured), encoding="utf-8")
    plot(measured, given.output / "load.png")


if __name__ == "__main__":
    main()
