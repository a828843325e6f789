"""The table of what teachers and students keep when vectors are shortened."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench.studies.inheritance import table
from edgeleaf.certify.shortened import BY_PCA, Shortened


def result(teacher: float, student: float, kept: float) -> dict[str, Any]:
    rows = [
        Shortened(384, "float32", 1536, 1.0, 0.8, teacher, student),
        Shortened(64, "float32", 256, 0.6, 0.5, 0.1, 0.1, BY_PCA),  # left out: few documents have many axes
        Shortened(64, "binary", 8, 0.5, 0.4, teacher * kept, student * kept / 2),
    ]
    return {"held_out_cosine": 0.75, "collections": {"a": [asdict(row) for row in rows], "b": [asdict(rows[0])] * 2}}


def test_shares_are_of_each_models_own_figure_at_full_width() -> None:
    text = table({"InfoNCE": result(0.8, 0.4, 0.5), "with Matryoshka": result(0.6, 0.6, 1.0)})
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert lines[0][2:] == ["teacher, InfoNCE", "its student, InfoNCE", *lines[0][4:]]
    assert lines[2] == ["384", "nDCG@10", "0.8000", "0.4000", "0.6000", "0.6000"]
    assert lines[3] == ["384", "float32", "100.0%", "100.0%", "100.0%", "100.0%"]
    assert lines[4] == ["64", "binary", "75.0%", "62.5%", "100.0%", "75.0%"]
    assert "InfoNCE 0.7500, with Matryoshka 0.7500" in text
