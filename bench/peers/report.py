"""Tables and plots of the results of ``bench.peers.run``.

    python -m bench.peers.report RESULTS.json [RESULTS.json ...] -o bench

Writes ``RESULTS.md``, its PNG files, and ``results.json.gz``, which has all their data, raw times included. Several
files are combined if they come from one machine, one bundle and the same peers. Others are refused, because their times
cannot be compared.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers.figures import MIDDLE, OURS, SHORT, TEACHERS, Figures, number, worst
from bench.peers.noise import warnings
from bench.peers.plots import PLOTS
from bench.peers.run import SCHEMA_VERSION
from bench.tables import markdown_table
from edgeleaf.errors import EdgeleafError, InputError
from edgeleaf.files import write_bytes, write_text
from edgeleaf.latency.report import FEW, percentiles

PACKAGES = (
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-node", "torch", "sentence-transformers", "transformers"),
    *("tokenizers", "optimum-onnx", "fastembed", "light-embed", "onnxruntime-extensions", "xllamacpp", "model2vec"),
    *("@huggingface/transformers", "@huggingface/tokenizers"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of RESULTS.md and its plots")
    given = parser.parse_args()
    try:
        results = merged([read(path) for path in given.results], [str(path) for path in given.results])
        figures = Figures(results)
        text = markdown(figures)
    except EdgeleafError as error:
        sys.exit(str(error))
    given.output.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        draw(figures, given.output / name)
    raw = json.dumps(results, ensure_ascii=False).encode()
    write_bytes(given.output / "results.json.gz", gzip.compress(raw, mtime=0))
    write_text(given.output / "RESULTS.md", text)
    sys.stdout.write(f"{given.output / 'RESULTS.md'}\n")


def read(path: Path) -> dict[str, Any]:
    """Read a results.json, gzipped or not.

    Raises:
        InputError: no such file, or not in a format that this program reads.
    """
    try:
        data = path.read_bytes()
        found: dict[str, Any] = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        version = found["schema_version"], found["peers"]
    except OSError:
        raise InputError(f"{path}: no such file; python -m bench.peers.run writes it") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not what bench.run writes") from None
    if version[0] != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {version[0]}, this program reads {SCHEMA_VERSION}; measure again")
    return found


def merged(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Combine results; times of one peer are pooled.

    Raises:
        InputError: they come from different machines, bundles, settings or peers; the message names what differs.
    """
    whole: dict[str, Any] = json.loads(json.dumps(results[0]))
    if len(results) > 1 and whole["machine"]["id"] is None:
        raise InputError("this system does not tell one machine from another of its kind: report each file apart")
    for other, name in zip(results[1:], names[1:], strict=True):
        for part in ("machine", "bundle", "settings", "peers"):
            one, two = _fixed(whole, part), _fixed(other, part)
            if differs := [key for key in sorted({*one, *two}) if one.get(key) != two.get(key)]:
                raise InputError(
                    f"{name} and {names[0]} differ in {part}: {', '.join(differs)}; their times cannot be compared, "
                    "report them apart"
                )
        records = {(entry["system"], entry["threads"]): entry for entry in whole["systems"]}
        for entry in other["systems"]:
            _pool(records[entry["system"], entry["threads"]], entry)
        whole["notes"] += [note for note in other["notes"] if note not in whole["notes"]]
        whole["absent"] = {**other["absent"], **whole["absent"]}
        whole["noise"]["fixed_work_ms"] += other["noise"]["fixed_work_ms"]
        for share in ("others_share", "stolen_share"):
            whole["noise"][share] = max(whole["noise"][share], other["noise"][share])
    for many in ("sessions", "repeats"):
        whole["settings"][many] *= len(results)
    return whole


def _fixed(results: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the facts that must be equal; for a peer, its packages."""
    if part == "peers":
        return {name: entry["versions"] for name, entry in results["peers"].items()}
    return dict(results[part])


def _pool(known: dict[str, Any], entry: Mapping[str, Any]) -> None:
    for key, value in entry.items():
        if key == "lengths":
            for mine, its in zip(known[key], value, strict=True):
                counts = len(mine["times_ms"]), len(its["times_ms"])
                mine["cpu_ms"] = (mine["cpu_ms"] * counts[0] + its["cpu_ms"] * counts[1]) / sum(counts)
                mine["times_ms"] += its["times_ms"]
                mine["visits"] += its["visits"]
                mine |= percentiles(mine["times_ms"])
        elif key == "batches":
            for mine, its in zip(known[key], value, strict=True):
                mine["queries_per_s"] += its["queries_per_s"]
                mine["cpu_ms"] += its["cpu_ms"]
        elif isinstance(value, list):
            known[key] += value


def markdown(figures: Figures) -> str:
    """Return RESULTS.md."""
    results = figures.results
    machine, settings, loud = results["machine"], results["settings"], warnings(results["noise"])
    quiet = [note for note in results["notes"] if note not in loud]
    parts = [
        "# From the string to the vector",
        f"Made by `make bench{'-gpu' * bool(machine['gpu'])}` "
        "(`python -m bench.peers.run`, `python -m bench.peers.report`); "
        "nothing here is written by hand. "
        f"{machine['gpu'] + ', ' if machine['gpu'] else ''}{machine['processor']}, {machine['cores']} cores "
        f"({', '.join(machine['features'])}), governor {machine['governor'] or 'unknown'}, {machine['os']}, Python "
        f"{machine['python']}. Bundle `{results['bundle']['space']}`, {results['bundle']['file_mb']} MB, sha256 "
        f"`{results['bundle']['fused_sha256'][:16]}`.",
        "Every peer runs in its own process, in an environment that contains only what it needs, with one thread "
        f"budget for all. They take turns in random order: {settings['sessions']} starts, {settings['visits']} visits "
        f"each, up to {settings['repeats']} calls per length. Batch size is 1 unless stated otherwise. Cosine is to "
        f"the teacher, overlap@10 is with the teacher's own ten of {settings['documents']:,} documents, on "
        f"{settings['queries']} held-out queries. A cold start is the start of a process whose files the system has "
        "read before.",
        "## In short, one thread",
        _short(figures),
        *(["**Not quiet**: " + "; ".join(loud) + "."] if loud else []),
        "![Time against agreement with the teacher](alignment.png)",
        *(["## Targets", _targets(figures)] if results["ceiling"] else []),
        "## By length",
        "![Median time by length](lengths.png)",
        *(_by_length(figures, threads) for threads in figures.threads),
        "## Batches of mixed lengths",
        _batches(figures),
        "## Cold start and memory",
        _cold(figures),
        "![Cold start and peak memory](cold.png)",
        *(["## The ceiling", _ceiling(figures)] if results["ceiling"] else []),
        "## Who was measured",
        _who(figures),
        *(["## Notes", "\n".join(f"- {note}" for note in quiet)] if quiet else []),
    ]
    return "\n\n".join(parts) + "\n"


def _short(figures: Figures) -> str:
    rows = []
    for name in sorted(figures.names, key=lambda name: figures.p50(name, MIDDLE)):
        facts = figures.results["peers"][name]
        title = f"**{figures.title(name)}**" if name == OURS else figures.title(name)
        rows.append(
            [
                title,
                *(f"{figures.p50(name, tokens):.2f}" for tokens in SHORT),
                f"{figures.p50(name, MIDDLE) / figures.p50(OURS, MIDDLE):.2f}×",
                "own space" if facts["cosine"] is None else f"{facts['cosine']:.4f}",
                f"{facts['overlap_at_10']:.3f}",
                number(figures.median(name, "cold_ms")),
                number(figures.median(name, "peak_rss_mb")),
                f"{facts['artefact_mb']:.1f}",
                f"{facts['installed_mb']:.0f}",
            ]
        )
    columns = ["", *(f"p50, {tokens} tokens, ms" for tokens in SHORT), f"of ours, {MIDDLE} tokens", "cosine"]
    more = ["overlap@10", "cold start, ms", "peak memory, MB", "model, MB", "installed, MB"]
    return markdown_table([*columns, *more], rows)


def _targets(figures: Figures) -> str:
    """Return the project's own targets with 95% intervals over visits, for peers that were measured."""
    here, rows = set(figures.names), []

    def row(what: str, target: float, found: Any, *, at_least: bool = False) -> None:
        """Add a row; ``found`` is an estimate or a single number."""
        mean = getattr(found, "mean", found)
        shown = f"{mean:.2f} ({found.low:.2f} to {found.high:.2f})" if hasattr(found, "low") else f"{mean:.2f}"
        met = mean >= target if at_least else mean <= target
        rows.append([what, shown, f"{'≥' if at_least else '≤'} {target:g}", "met" if met else "**not met**"])

    def p50(name: str) -> Any:
        return worst([figures.p50_ratio(name, tokens) for tokens in SHORT])

    if "st-onnx-int8" in here:
        row("p50 of sentence-transformers' ONNX int8", 0.6, p50("st-onnx-int8"))
    if "st-torch" in here:
        row("p50 of sentence-transformers in torch", 0.15, p50("st-torch"))
    for what, rivals in (
        ("the fastest as faithful to the teacher", figures.as_faithful()),
        ("the fastest of all that hold the student", figures.students()),
    ):
        others = [name for name in rivals if "edgeleaf" not in name]
        if others:
            fastest = {tokens: min(others, key=lambda name, t=tokens: figures.p50(name, t)) for tokens in SHORT}
            found = worst([figures.p50_ratio(name, tokens) for tokens, name in fastest.items()])
            titles = ", ".join(dict.fromkeys(figures.title(name) for name in fastest.values()))
            row(f"p50 of {what} ({titles})", 0.85, found)
    if "st-torch" in here:
        for what, key, target in (("cold start", "cold_ms", 0.1), ("peak memory", "peak_rss_mb", 0.25)):
            ours, theirs = figures.median(OURS, key), figures.median("st-torch", key)
            if ours is not None and theirs:
                row(f"{what} of sentence-transformers in torch", target, ours / theirs)
    size = figures.results["settings"]["batch_sizes"][-1]
    for name, target in ((f"{TEACHERS}-torch", 30.0), (f"{TEACHERS}-onnx", 12.0)):
        if name in here:
            what = f"queries per second, batch {size}, of {figures.title(name)}"
            row(what, target, figures.rate_ratio(name, size), at_least=True)
    one = figures.results["ceiling"]["threads"][0]
    row(
        "the encoder's time, as a multiple of the ceiling",
        2.0,
        max(one["encoder_ms"][str(n)] / one["least_ms"][str(n)] for n in SHORT),
    )
    behind = []
    for name in figures.students():
        found = figures.cosine_behind(name)
        if found is not None and "edgeleaf" not in name:
            behind.append([figures.title(name), f"{found.mean:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}"])
    head = "Ours divided by theirs, one thread; times are the worst of 8, 16 and 32 tokens; 95% intervals in brackets."
    faithful = "How far the mean cosine to the teacher is below ours, on the same queries:"
    tables = [markdown_table(["", "measured", "target", ""], rows)]
    tables.append(markdown_table(["", "behind by", "95% interval"], behind))
    return "\n\n".join([head, tables[0], faithful, tables[1]])


def _by_length(figures: Figures, threads: int) -> str:
    rows = []
    for name in figures.names:
        cells = []
        for tokens in figures.results["settings"]["lengths"]:
            found = figures.length(name, threads, tokens)
            few = len(found["times_ms"]) < FEW
            tail = f"({found['p99_ms']:.2f})" if few else f"{found['p99_ms']:.2f}"
            cells.append(f"{found['p50_ms']:.2f} / {found['p95_ms']:.2f} / {tail}")
        cpu = figures.length(name, threads, MIDDLE)["cpu_ms"]
        rows.append([figures.title(name), *cells, f"{cpu:.2f}", number(figures.median(name, "busy_threads", threads))])
    lengths = [f"{tokens} tokens" for tokens in figures.results["settings"]["lengths"]]
    head = f"{threads} thread{'s' * (threads > 1)}: p50 / p95 / p99 in ms (in brackets: from fewer than {FEW} calls)"
    return f"{head}\n\n{markdown_table(['', *lengths, f'CPU ms, {MIDDLE} tokens', 'threads that worked'], rows)}"


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
    columns = [
        "queries per second",
        *(f"{threads} thread{'s' * (threads > 1)}, batch {size}" for threads, size in pairs),
    ]
    return markdown_table([*columns, f"CPU ms per query, batch {sizes[-1]}"], rows)


def _cold(figures: Figures) -> str:
    """Return the medians over starts with one thread."""
    keys = ("load_ms", "cold_ms", "peak_rss_mb")
    names = sorted(figures.names, key=lambda name: figures.median(name, "cold_ms") or 0.0)
    rows = [[figures.title(name), *(number(figures.median(name, key)) for key in keys)] for name in names]
    columns = ["", "load to first vector, ms", "process start to first vector, ms", "peak memory, MB"]
    return markdown_table(columns, rows)


def _ceiling(figures: Figures) -> str:
    found = figures.results["ceiling"]
    one = found["threads"][0]
    lengths = list(one["least_ms"])
    rows = []
    for each in found["threads"]:
        threads = f"{each['threads']} thread{'s' * (each['threads'] > 1)}"
        least, encoder = each["least_ms"], each["encoder_ms"]
        rows.append([f"shortest time (ceiling), {threads}, ms", *(f"{least[length]:.3f}" for length in lengths)])
        rows.append([f"edgeleaf's encoder alone, {threads}", *(f"{encoder[n] / least[n]:.1f}×" for n in lengths)])
    students = (name for name in figures.names if not name.startswith(TEACHERS))  # a teacher has its own ceiling
    for name in sorted(students, key=lambda name: figures.p50(name, MIDDLE)):
        cells = (f"{figures.p50(name, int(length)) / one['least_ms'][length]:.1f}×" for length in lengths)
        rows.append([f"{figures.title(name)}, from the string", *cells])
    text = (
        f"One thread: {one['gmacs_per_s']} billion int8 multiplications per second, the highest rate that "
        f"onnxruntime's kernel reached on any shape in this run; {found['weights_mb']} MB of int8 matrices, read at "
        f"{one['gb_per_s']} GB/s. The shortest possible time of a query is the longer of two times: its "
        "multiplications at the former rate, and reading its weights at the latter. Everything else counts as free "
        "(`python -m bench.studies.ceiling`)."
    )
    return f"{text}\n\n{markdown_table(['of the ceiling', *(f'{length} tokens' for length in lengths)], rows)}"


def _who(figures: Figures) -> str:
    rows = []
    for name in figures.names:
        facts = figures.results["peers"][name]
        versions = ", ".join(f"{key} {facts['versions'][key]}" for key in PACKAGES if key in facts["versions"])
        rows.append([figures.title(name), versions, facts["note"]])
    absent = [f"- {name} is left out: {why}" for name, why in figures.results["absent"].items()]
    return "\n".join([markdown_table(["", "versions", "to know"], rows, left=3), *([""] if absent else []), *absent])


if __name__ == "__main__":
    main()
