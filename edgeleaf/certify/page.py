"""The certificate as one self-contained HTML page: the verdict first, then the measurements behind it.

The page depends on the certificate only. It has no scripts, external resources or dates; plots are inline SVG that
takes its colours from the page, light or dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf import quiet
from edgeleaf.certify.alignment import DIGITS
from edgeleaf.certify.certificate import Certificate
from edgeleaf.certify.shortened import Shortened
from edgeleaf.certify.verdicts import AT_LEAST, Verdict, apart
from edgeleaf.emulation.processors import NATIVE
from edgeleaf.errors import MissingExtra

TEMPLATE = Path(__file__).with_name("certificate.html.j2")

# Placeholders for colours: matplotlib draws with them, and the page's CSS replaces them.
_INK, _GRID, _STUDENT, _FUSED = "#0a0b0c", "#0a0b0d", "#0a0b0e", "#0a0b0f"
_CSS = {_INK: "currentColor", _GRID: "var(--line)", _STUDENT: "var(--student)", _FUSED: "var(--fused)"}

_WHO = ("teacher", "fused")
_NAMES = {"overlap_at_10": "overlap@10", "ndcg_at_10": "nDCG@10"}

_SIZE_INCHES = (4.4, 2.7)
_LENGTH_BINS = 6


def render(certificate: Certificate) -> str:
    """Return the page as HTML; every text in it is escaped.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise MissingExtra("the certificate's page needs jinja2; pip install 'edgeleaf[distill]'") from None
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = _figure_text
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return str(
        template.render(
            certificate=certificate,
            gates=[_gate_row(verdict) for verdict in certificate.verdicts],
            fused=certificate.rungs[-1],
            cuts=_cuts,
            native=NATIVE,
            plots=[(title, caption, _safe(draw)) for title, caption, draw in _plots(certificate)],
        )
    )


def _safe(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)


def _figure_text(value: float, digits: int = 4) -> str:
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def _gate_row(verdict: Verdict) -> dict[str, Any]:
    value, _ = apart(verdict.value, verdict.limit)
    sign = "≥" if verdict.bound == AT_LEAST else "≤"
    return {
        "gate": verdict.gate,
        "meaning": verdict.meaning,
        "value": value,
        "limit": f"{sign} {verdict.limit:.9g}",
        "ok": verdict.ok,
    }


def _cuts(reports: Sequence[Shortened]) -> dict[str, Any]:
    """Return what each setting loses of the first (full width, float32), and at how many the file loses no more.

    Shares are compared, not differences, because a system that starts lower has less to lose.
    """
    first = reports[0]
    measures = ["overlap_at_10"] if first.fused_ndcg_at_10 is None else ["overlap_at_10", "ndcg_at_10"]
    rows = []
    no_more = dict.fromkeys(measures, 0)
    for report in reports:
        cells = []
        for measure in measures:
            values = [getattr(report, f"{who}_{measure}") for who in _WHO]
            whole = [getattr(first, f"{who}_{measure}") for who in _WHO]
            losses = [1 - value / start if start > 0 else 0.0 for value, start in zip(values, whole, strict=True)]
            no_more[measure] += round(losses[1] - losses[0], DIGITS) <= 0
            cells += [
                {"label": f"{_NAMES[measure]}, {name}", "value": value, "loss": loss}
                for name, value, loss in zip(("teacher", "file"), values, losses, strict=True)
            ]
        rows.append({"report": report, "cells": cells})
    return {"rows": rows, "no_more": {_NAMES[measure]: count - 1 for measure, count in no_more.items()}}


def _plots(certificate: Certificate) -> list[tuple[str, str, str]]:
    """Return the title, caption and SVG of each plot."""
    per_query = certificate.per_query
    return [
        (
            "Cosine to the teacher",
            "Held-out queries by the cosine of their vector to the teacher’s. Right is better.",
            _draw("cosine", lambda axes: _cosine_histogram(axes, per_query.student_cosine, per_query.fused_cosine)),
        ),
        (
            "Overlap of the first ten",
            "Queries by how many of the teacher’s own ten nearest documents are found.",
            _draw(
                "overlap",
                lambda axes: _overlap_bars(axes, per_query.student_overlap_at_10, per_query.fused_overlap_at_10),
            ),
        ),
        (
            "By query length",
            "Fused file: median cosine to the teacher, bars from the 5th to the 95th percentile.",
            _draw("length", lambda axes: _cosine_by_length(axes, per_query.tokens, per_query.fused_cosine)),
        ),
    ]


def _cosine_histogram(axes: Any, student: Sequence[float], fused: Sequence[float]) -> None:
    low = min(*student, *fused)
    high = max(*student, *fused)
    edges = np.linspace(low, max(high, low + 1e-4), 31)
    axes.hist(fused, bins=edges, color=_FUSED, alpha=0.45, label="fused file")
    axes.hist(student, bins=edges, color=_STUDENT, histtype="step", linewidth=1.4, label="torch student")
    axes.set_xlabel("cosine to the teacher")
    axes.set_ylabel("queries")
    _legend(axes)


def _overlap_bars(axes: Any, student: Sequence[float], fused: Sequence[float]) -> None:
    places = np.arange(11)
    for shift, shares, color, label in ((-0.2, student, _STUDENT, "torch student"), (0.2, fused, _FUSED, "fused file")):
        counts = np.bincount(np.rint(np.asarray(shares) * 10).astype(int), minlength=11)
        axes.bar(places + shift, counts, width=0.4, color=color, label=label)
    axes.set_xticks(places)
    axes.set_xlabel("of the teacher's ten")
    axes.set_ylabel("queries")
    _legend(axes)


def _legend(axes: Any) -> None:
    """Put the legend above the axes, where no bar can hide it; counts are whole numbers."""
    axes.legend(frameon=False, labelcolor=_INK, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2)
    axes.yaxis.get_major_locator().set_params(integer=True)


def _cosine_by_length(axes: Any, tokens: Sequence[int], cosines: Sequence[float]) -> None:
    lengths, values = np.asarray(tokens), np.asarray(cosines)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _LENGTH_BINS + 1), method="lower"))
    starts = edges[:-1] if len(edges) > 1 else edges
    labels = []
    for place, start in enumerate(starts):
        end = starts[place + 1] if place + 1 < len(starts) else int(lengths.max()) + 1
        inside = values[(lengths >= start) & (lengths < end)]
        low, middle, high = np.percentile(inside, [5, 50, 95])
        axes.vlines(place, low, high, color=_FUSED, linewidth=5, alpha=0.35)
        axes.plot([place], [middle], "o", color=_FUSED, markersize=5)
        labels.append(f"{start}" if start == end - 1 else f"{start}–{end - 1}")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_xlabel("tokens")
    axes.set_ylabel("cosine to the teacher")


def _draw(name: str, plot: Callable[[Any], None]) -> str:
    """Return a plot as an SVG element; the same data give the same bytes."""
    try:
        quiet.matplotlib_files()
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("the certificate's plots need matplotlib; pip install 'edgeleaf[distill]'") from None
    settings = {
        "svg.hashsalt": f"edgeleaf-{name}",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": _GRID,
        "grid.linewidth": 0.6,
        "xtick.color": _GRID,
        "ytick.color": _GRID,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
    }
    with rc_context(settings):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        plot(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(?:\w*figure|patch|axes|matplotlib|xtick|ytick|text|line2d|legend)_[\w.]*"', "", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", svg, count=2)
    for stand_in, css in _CSS.items():
        svg = svg.replace(stand_in, css)
    return svg.rstrip()
