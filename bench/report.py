"""Tables and plots of what ``bench.run`` measured.

    python -m bench.report RESULTS.json [RESULTS.json ...] -o bench

Writes ``RESULTS.md`` and its PNG files. Several files are put together when they come from one machine and one bundle;
others are refused, for their times cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.run import SCHEMA_VERSION
from edgeleaf import bundle as layout
from edgeleaf import latency
from edgeleaf.errors import EdgeleafError, InputError

OURS = "edgeleaf"
SHORT = (8, 16, 32)
MIDDLE = 16
SAME = ("machine", "bundle", "settings")
EQUAL_ALIGNMENT = 0.002
"""A peer whose cosine to the teacher is no more than this below ours is as aligned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of RESULTS.md and its plots")
    given = parser.parse_args()
    try:
        results = merged([read(path) for path in given.results], [str(path) for path in given.results])
    except EdgeleafError as error:
        sys.exit(str(error))
    given.output.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        draw(results, given.output / name)
    layout.write_text(given.output / "RESULTS.md", markdown(results))
    sys.stdout.write(f"{given.output / 'RESULTS.md'}\n")


def read(path: Path) -> dict[str, Any]:
    """Read a results.json.

    Raises:
        InputError: no such file, or not one that this program writes.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = found["schema_version"], found["peers"]
    except OSError:
        raise InputError(f"{path}: no such file; python -m bench.run writes it") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not what bench.run writes") from None
    if version[0] != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {version[0]}, this program reads {SCHEMA_VERSION}; measure again")
    return found


def merged(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Put results together: times of one peer are pooled.

    Raises:
        InputError: they come from different machines, bundles or settings; it names what differs.
    """
    whole: dict[str, Any] = json.loads(json.dumps(results[0]))
    for other, name in zip(results[1:], names[1:], strict=True):
        for part in SAME:
            if other[part] != whole[part]:
                differs = [key for key in whole[part] if other[part].get(key) != whole[part][key]]
                raise InputError(
                    f"{name} and {names[0]} differ in {part}: {', '.join(differs)}; times of different machines and "
                    "bundles cannot be compared, report them apart"
                )
        records = {(entry["system"], entry["threads"]): entry for entry in whole["systems"]}
        for entry in json.loads(json.dumps(other["systems"])):
            known = records.get((entry["system"], entry["threads"]))
            if known is None:
                whole["systems"].append(entry)
            else:
                _pool(known, entry)
        whole["peers"] |= other["peers"]
        whole["absent"] = {
            key: why for key, why in (whole["absent"] | other["absent"]).items() if key not in whole["peers"]
        }
        whole["notes"] += [note for note in other["notes"] if note not in whole["notes"]]
    return whole


def _pool(known: dict[str, Any], entry: Mapping[str, Any]) -> None:
    for key, value in entry.items():
        if key == "lengths":
            for mine, its in zip(known[key], value, strict=True):
                counts = len(mine["times_ms"]), len(its["times_ms"])
                mine["cpu_ms"] = (mine["cpu_ms"] * counts[0] + its["cpu_ms"] * counts[1]) / sum(counts)
                mine["times_ms"] += its["times_ms"]
                mine |= latency.percentiles(mine["times_ms"])
        elif key == "batches":
            for mine, its in zip(known[key], value, strict=True):
                mine["queries_per_s"] += its["queries_per_s"]
                mine["cpu_ms"] += its["cpu_ms"]
        elif isinstance(value, list):
            known[key] += value


class Figures:
    """What tables ask for: medians by peer, thread count and length."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results
        self.records = {(entry["system"], entry["threads"]): entry for entry in results["systems"]}
        self.threads = results["settings"]["threads"]
        self.names = [name for name in results["peers"] if (name, self.threads[0]) in self.records]

    def length(self, name: str, threads: int, tokens: int) -> Mapping[str, Any]:
        found: Mapping[str, Any]
        found = next(entry for entry in self.records[name, threads]["lengths"] if entry["tokens"] == tokens)
        return found

    def p50(self, name: str, tokens: int, threads: int = 1) -> float:
        return float(self.length(name, threads, tokens)["p50_ms"])

    def median(self, name: str, key: str, threads: int = 1) -> float:
        return float(statistics.median(value for value in self.records[name, threads][key] if value is not None))

    def rate(self, name: str, size: int, threads: int = 1) -> float:
        batch = next(entry for entry in self.records[name, threads]["batches"] if entry["size"] == size)
        return float(statistics.median(batch["queries_per_s"]))

    def batch_cpu_ms(self, name: str, size: int, threads: int = 1) -> float:
        batch = next(entry for entry in self.records[name, threads]["batches"] if entry["size"] == size)
        return float(statistics.median(batch["cpu_ms"]))

    def title(self, name: str) -> str:
        return str(self.results["peers"][name]["title"])

    def aligned(self) -> list[str]:
        """The peers, ours left out, that hold the same student as faithfully as ours does."""
        peers = self.results["peers"]
        least = peers[OURS]["cosine"] - EQUAL_ALIGNMENT
        return [
            name
            for name in self.names
            if name != OURS and not name.startswith("teacher") and (peers[name]["cosine"] or 0) >= least
        ]


def markdown(results: Mapping[str, Any]) -> str:
    """Return RESULTS.md."""
    figures = Figures(results)
    machine, settings = results["machine"], results["settings"]
    parts = [
        "# From the string to the vector",
        "Made by `make bench` (`python -m bench.run`, `python -m bench.report`); nothing here is typed by hand. "
        f"{machine['gpu'] + ', ' if machine['gpu'] else ''}{machine['processor']}, {machine['cores']} cores "
        f"({', '.join(machine['features'])}), "
        f"governor {machine['governor'] or 'not told'}, {machine['os']}, Python {machine['python']}, "
        f"onnxruntime {machine['onnxruntime']}. Bundle `{results['bundle']['space']}`, "
        f"{results['bundle']['file_mb']} MB, sha256 `{results['bundle']['fused_sha256'][:16]}`.",
        f"Every peer has an environment and a process of its own, held to its threads by the scheduler, and all take "
        f"turns in random order: {settings['sessions']} starts, {settings['visits']} visits each, up to "
        f"{settings['repeats']} calls a length. Batch 1 unless it says otherwise. Cosine is to the teacher, overlap@10 "
        f"is with the teacher's own ten of {settings['documents']:,} documents, on {settings['queries']} held-out "
        "queries.",
        "## In short, one thread",
        _short(figures),
        "![Time against agreement with the teacher](alignment.png)",
        "## By length",
        "![Median time by length](lengths.png)",
        *(_by_length(figures, threads) for threads in figures.threads),
        "## Batches of mixed lengths",
        _batches(figures),
        "## Cold start and memory",
        "![Cold start and peak memory](cold.png)",
        *(["## The ceiling", _ceiling(figures)] if results["ceiling"] else []),
        *(["## Targets", _targets(figures)] if results["ceiling"] else []),
        "## Who was measured",
        _who(figures),
        *_noted(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _short(figures: Figures) -> str:
    rows = []
    for name in sorted(figures.names, key=lambda name: figures.p50(name, MIDDLE)):
        facts = figures.results["peers"][name]
        own = "own space" if facts["cosine"] is None else f"{facts['cosine']:.4f}"
        title = f"**{figures.title(name)}**" if name == OURS else figures.title(name)
        rows.append(
            [
                title,
                *(f"{figures.p50(name, tokens):.2f}" for tokens in SHORT),
                f"{figures.p50(name, MIDDLE) / figures.p50(OURS, MIDDLE):.2f}×",
                own,
                f"{facts['overlap_at_10']:.3f}",
                f"{figures.median(name, 'cold_ms'):.0f}",
                f"{figures.median(name, 'peak_rss_mb'):.0f}",
                f"{facts['artefact_mb']:.1f}",
                f"{facts['installed_mb']:.0f}",
            ]
        )
    columns = ["", *(f"p50, {tokens} tokens, ms" for tokens in SHORT), "of ours, 16 tokens", "cosine", "overlap@10"]
    return _table([*columns, "cold start, ms", "peak memory, MB", "model, MB", "installed, MB"], rows)


def _by_length(figures: Figures, threads: int) -> str:
    lengths = figures.results["settings"]["lengths"]
    rows = []
    for name in figures.names:
        cells = []
        for tokens in lengths:
            found = figures.length(name, threads, tokens)
            few = len(found["times_ms"]) < latency.FEW
            tail = f"({found['p99_ms']:.2f})" if few else f"{found['p99_ms']:.2f}"
            cells.append(f"{found['p50_ms']:.2f} / {found['p95_ms']:.2f} / {tail}")
        used = max(value for value in figures.records[name, threads]["busy_threads"] if value is not None)
        rows.append([figures.title(name), *cells, f"{figures.length(name, threads, MIDDLE)['cpu_ms']:.2f}", str(used)])
    head = f"{threads} thread{'s' if threads > 1 else ''}: p50 / p95 / p99 in ms (in brackets: of fewer than 100 calls)"
    columns = ["", *(f"{tokens} tokens" for tokens in lengths), "CPU ms, 16 tokens", "threads that worked"]
    return f"{head}\n\n{_table(columns, rows)}"


def _batches(figures: Figures) -> str:
    sizes = figures.results["settings"]["batch_sizes"]
    pairs = [(threads, size) for threads in figures.threads for size in sizes]
    rows = [
        [
            figures.title(name),
            *(f"{figures.rate(name, size, threads):.0f}" for threads, size in pairs),
            f"{figures.batch_cpu_ms(name, sizes[-1]):.2f}",
        ]
        for name in sorted(figures.names, key=lambda name: -figures.rate(name, sizes[-1]))
    ]
    columns = ["queries a second", *(f"{threads} thread{'s' * (threads > 1)}, batch {size}" for threads, size in pairs)]
    return _table([*columns, f"CPU ms a query, batch {sizes[-1]}"], rows)


def _ceiling(figures: Figures) -> str:
    found = figures.results["ceiling"]
    one = found["threads"][0]
    lengths = list(one["least_ms"])
    rows = [
        ["least time (ceiling), ms", *(f"{one['least_ms'][length]:.3f}" for length in lengths)],
        ["edgeleaf's encoder alone, from ids", *(f"{one['encoder_ms'][n] / one['least_ms'][n]:.1f}×" for n in lengths)],
    ]
    for name in sorted(figures.names, key=lambda name: figures.p50(name, MIDDLE)):
        cells = (f"{figures.p50(name, int(length)) / one['least_ms'][length]:.1f}×" for length in lengths)
        rows.append([f"{figures.title(name)}, from the string", *cells])
    text = (
        f"One thread: {one['gmacs_per_s']} billion int8 multiplications a second, the highest rate that onnxruntime's "
        f"kernel reached on any shape in this run; {found['weights_mb']} MB of int8 matrices, read at "
        f"{one['gb_per_s']} GB/s. The least time of a query is the longer of its multiplications at that rate and its "
        "weights at that rate, all else for nothing (`python -m bench.ceiling`)."
    )
    return f"{text}\n\n{_table(['of the ceiling, one thread', *(f'{length} tokens' for length in lengths)], rows)}"


def _targets(figures: Figures) -> str:
    """The issue's targets, over 8 to 32 tokens, the worst of them; only those whose peers were measured."""

    def worst(name: str) -> float:
        return max(figures.p50(OURS, tokens) / figures.p50(name, tokens) for tokens in SHORT)

    here = set(figures.names)
    rows: list[tuple[str, float, float, bool]] = []

    def at_most(what: str, value: float, target: float) -> None:
        rows.append((what, value, target, value <= target))

    if "st-onnx-int8" in here:
        at_most("p50 of sentence-transformers' ONNX int8", worst("st-onnx-int8"), 0.6)
    if "st-torch" in here:
        at_most("p50 of sentence-transformers in torch", worst("st-torch"), 0.15)
        at_most("cold start of it", figures.median(OURS, "cold_ms") / figures.median("st-torch", "cold_ms"), 0.1)
        at_most(
            "peak memory of it", figures.median(OURS, "peak_rss_mb") / figures.median("st-torch", "peak_rss_mb"), 0.25
        )
    if rivals := [name for name in figures.aligned() if "edgeleaf" not in name]:
        fastest = min(rivals, key=lambda name: figures.p50(name, MIDDLE))
        at_most(f"p50 of the fastest as aligned ({figures.title(fastest)})", worst(fastest), 0.85)
    for name, target in (("teacher-torch", 30.0), ("teacher-onnx", 12.0)):
        if name in here:
            size = figures.results["settings"]["batch_sizes"][-1]
            value = figures.rate(OURS, size) / figures.rate(name, size)
            rows.append(
                (f"queries a second, batch {size}, of {figures.title(name)}, at least", value, target, value >= target)
            )
    one = figures.results["ceiling"]["threads"][0]
    ratio = max(one["encoder_ms"][str(tokens)] / one["least_ms"][str(tokens)] for tokens in SHORT)
    at_most("the encoder's time of the ceiling", ratio, 2.0)
    cells = [
        [what, f"{value:.2f}", f"{target:g}", "met" if met else "**not met**"] for what, value, target, met in rows
    ]
    return _table(["one thread, the worst of 8, 16 and 32 tokens", "measured", "target", ""], cells)


def _who(figures: Figures) -> str:
    rows = []
    for name in figures.names:
        facts = figures.results["peers"][name]
        packages = ("onnxruntime", "onnxruntime-node", "torch", "sentence-transformers", "tokenizers", "transformers")
        more = ("fastembed", "light-embed", "xllamacpp", "model2vec", "optimum-onnx", "@huggingface/transformers")
        versions = [f"{key} {facts['versions'][key]}" for key in (*packages, *more) if key in facts["versions"]]
        rows.append([figures.title(name), ", ".join(versions), facts["note"]])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    absent = [f"- {name} is left out: {why}" for name, why in figures.results["absent"].items()]
    return "\n".join(["| | versions | |", "|---|---|---|", table, *([""] if absent else []), *absent])


def _noted(results: Mapping[str, Any]) -> list[str]:
    return ["## Noted", "\n".join(f"- {note}" for note in results["notes"])] if results["notes"] else []


def _figure(height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    return pyplot, pyplot.subplots(figsize=(8, height), layout="constrained")


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=140, metadata={"Software": None})
    pyplot.close(figure)


SHOWN = (
    "edgeleaf",
    "by-hand-int8",
    "by-hand",
    "st-onnx-int8",
    "st-torch",
    "transformers-js-q8",
    "llama-q8",
    "teacher-torch",
)
"""The lines of the plot by length: more could not be told apart."""


def lengths_plot(results: Mapping[str, Any], path: Path) -> None:
    """Median time by length, one thread, both axes logarithmic."""
    figures = Figures(results)
    pyplot, (figure, axes) = _figure(6.5)
    lengths = results["settings"]["lengths"]
    for name in (name for name in SHOWN if name in figures.names):
        times = [figures.p50(name, tokens) for tokens in lengths]
        axes.plot(lengths, times, marker="o", linewidth=3.5 if name == OURS else 1.8, label=figures.title(name))
    if results["ceiling"]:
        least = results["ceiling"]["threads"][0]["least_ms"]
        axes.plot(
            lengths, [least[str(n)] for n in lengths], color="grey", linestyle="--", label="ceiling of the arithmetic"
        )
    axes.set(xscale="log", yscale="log", xlabel="tokens of the query", ylabel="median, ms, one thread, from the string")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    _save(pyplot, figure, path)


def alignment_plot(results: Mapping[str, Any], path: Path) -> None:
    """Median time at 16 tokens against overlap@10 with the teacher."""
    figures = Figures(results)
    pyplot, (figure, axes) = _figure(7)
    for number, name in enumerate(figures.names):
        x, y = figures.p50(name, MIDDLE), results["peers"][name]["overlap_at_10"]
        axes.scatter([x], [y], s=140 if name == OURS else 60, zorder=3, color="C3" if name == OURS else "C0")
        axes.annotate(str(number + 1), (x, y), xytext=(6, 5), textcoords="offset points", fontsize=11)
    axes.set(
        xscale="log",
        xlabel=f"median of {MIDDLE} tokens, ms, one thread, from the string",
        ylabel="overlap@10 with the teacher",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    keys = [f"{number + 1}  {figures.title(name)}" for number, name in enumerate(figures.names)]
    half = (len(keys) + 1) // 2
    figure.supxlabel(
        "\n".join(f"{left:<44}" for left in keys[:half]), fontsize=9, x=0.02, ha="left", family="monospace"
    )
    if keys[half:]:
        figure.text(0.52, 0.005, "\n".join(keys[half:]), fontsize=9, family="monospace", va="bottom")
    _save(pyplot, figure, path)


def cold_plot(results: Mapping[str, Any], path: Path) -> None:
    """Cold start and peak memory, bars."""
    figures = Figures(results)
    names = sorted(figures.names, key=lambda name: figures.median(name, "cold_ms"), reverse=True)
    pyplot, (figure, _) = _figure(1 + 0.42 * len(names))
    figure.clear()
    left, right = figure.subplots(1, 2, sharey=True)
    titles = [figures.title(name) for name in names]
    colours = ["C3" if name == OURS else "C0" for name in names]
    for axes, key, label in ((left, "cold_ms", "start to first vector, ms"), (right, "peak_rss_mb", "peak memory, MB")):
        values = [figures.median(name, key) for name in names]
        axes.barh(titles, values, color=colours)
        axes.bar_label(axes.containers[0], fmt="%.0f", padding=3, fontsize=10)
        axes.set(xscale="log", xlabel=label, xlim=(min(values) / 2, max(values) * 3))
    _save(pyplot, figure, path)


PLOTS: Mapping[str, Callable[[Mapping[str, Any], Path], None]] = {
    "lengths.png": lengths_plot,
    "alignment.png": alignment_plot,
    "cold.png": cold_plot,
}

if __name__ == "__main__":
    main()
