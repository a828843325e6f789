"""Plots of the results of bench.peers.run, legible on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peers.figures import MIDDLE, OURS, Figures

SHOWN = (OURS, "by-hand-int8", "by-hand", "st-onnx-int8", "st-torch", "transformers-js-q8", "llama-q8", "teacher-torch")
"""The systems in the plot by length; a larger number of lines would be hard to distinguish."""
OUR_COLOUR, OTHERS_COLOUR = "C3", "C0"
COLOURS = ("C0", "C1", "C2", "C4", "C5", "C8", "C9")
"""Colours of the other lines."""
MOST = 10.0
"""Systems that take over this many times our time are left out of the plot of time against agreement, and so are those
in a space of their own: the teacher and static vectors would compress it."""
PLACES = (8, -18, 22, -32)
"""Heights of numbers above their points, in points, used in turn because some systems overlap."""


def lengths_plot(figures: Figures, path: Path) -> None:
    """Median time by length, one thread, both axes logarithmic."""
    with _figure(path, 6.5) as figure:
        axes = figure.subplots()
        lengths = figures.results["settings"]["lengths"]
        colours = iter(COLOURS)
        of_gpu = figures.results["machine"]["gpu"] is not None  # there are few peers, so all are shown
        for name in figures.names if of_gpu else [name for name in SHOWN if name in figures.names]:
            times = [figures.p50(name, tokens) for tokens in lengths]
            ours = name == OURS
            style = {"linewidth": 3.5 if ours else 1.8, "color": OUR_COLOUR if ours else next(colours)}
            axes.plot(lengths, times, marker="o", label=figures.title(name), **style)
        if figures.results["ceiling"]:
            least = figures.results["ceiling"]["threads"][0]["least_ms"]
            axes.plot(
                lengths,
                [least[str(n)] for n in lengths],
                color="grey",
                linestyle="--",
                label="the arithmetic's ceiling",
            )
        axes.set(
            xscale="log", yscale="log", xlabel="tokens of the query", ylabel="median, ms, one thread, from the string"
        )
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=11)


def alignment_plot(figures: Figures, path: Path) -> None:
    """Median time at 16 tokens against overlap@10 with the teacher; a legend explains the numbers, see :data:`MOST`."""
    from matplotlib.ticker import LogLocator

    with _figure(path, 8) as figure:
        axes = figure.subplots()
        near = [
            name
            for name in figures.names
            if figures.p50(name, MIDDLE) <= MOST * figures.p50(OURS, MIDDLE)
            and figures.results["peers"][name]["cosine"] is not None
        ]
        near.sort(key=lambda name: figures.p50(name, MIDDLE))
        handles = []
        for number, name in enumerate(near, start=1):
            x, y = figures.p50(name, MIDDLE), figures.results["peers"][name]["overlap_at_10"]
            ours = name == OURS
            point = axes.scatter(x, y, s=140 if ours else 60, zorder=3, color=OUR_COLOUR if ours else OTHERS_COLOUR)
            point.set_label(f"{number}  {figures.title(name)}")
            place = (0, PLACES[number % len(PLACES)])
            axes.annotate(str(number), (x, y), xytext=place, textcoords="offset points", fontsize=11, ha="center")
            handles.append(point)
        axes.margins(y=0.12)
        axes.set(
            xscale="log",
            xlabel=f"median of {MIDDLE} tokens, ms, one thread, from the string",
            ylabel="overlap@10 with the teacher",
        )
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.3, axis="x")
        axes.grid(alpha=0.3, axis="y")
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=10, markerscale=0)


def cold_plot(figures: Figures, path: Path) -> None:
    """Bars of cold start and peak memory."""
    known = [name for name in figures.names if figures.median(name, "peak_rss_mb") is not None]
    names = sorted(known, key=lambda name: figures.median(name, "cold_ms") or 0.0, reverse=True)
    if not names:
        return
    with _figure(path, 1 + 0.42 * len(names)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        titles = [figures.title(name) for name in names]
        colours = [OUR_COLOUR if name == OURS else OTHERS_COLOUR for name in names]
        keys = (("cold_ms", "start to first vector, ms"), ("peak_rss_mb", "peak memory, MB"))
        for axes, (key, label) in zip(panels, keys, strict=True):
            values = [figures.median(name, key) or 0.0 for name in names]
            axes.barh(titles, values, color=colours)
            axes.bar_label(axes.containers[0], fmt="%.0f", padding=3, fontsize=10)
            axes.set(xlabel=label, xlim=(0, max(values) * 1.35))


PLOTS: Mapping[str, Callable[[Figures, Path], None]] = {
    "lengths.png": lengths_plot,
    "alignment.png": alignment_plot,
    "cold.png": cold_plot,
}


@contextmanager
def _figure(path: Path, height: float) -> Iterator[Any]:
    """Yield an empty figure and save it. Its settings end with it, because others draw in this process, too."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=140, metadata={"Software": None})
