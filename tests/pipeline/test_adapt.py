"""The recipe that an adaptation makes of a corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeleaf.bundle.manifest import Manifest
from edgeleaf.pipeline import adapt as module


def test_texts_of_many_tokens_are_fewer(tiny_bundle: Path, tmp_path: Path) -> None:
    limits = []
    for name, word in (("prose", "stone"), ("code", "a.b")):
        lines = [" ".join(f"{word}{i}{j}" for j in range(12)) + "." for i in range(300)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
        recipe = module.adaptation(Manifest.read(tiny_bundle), tiny_bundle, tmp_path / f"{name}.txt", None)
        limits.append(recipe.texts.limit)
    prose, code = limits
    assert code < prose <= module.TEXTS
    assert code > module.TOKENS / 128  # no text has more tokens than the window


def test_a_sample_is_drawn_from_all_of_a_corpus() -> None:
    count, sample = module.drawn((str(number) for number in range(10_000)), 1000)
    assert (count, len(set(sample))) == (10_000, 1000)
    assert sum(map(int, sample)) / 1000 == pytest.approx(5000, abs=400)  # four standard deviations
    assert module.drawn(["a", "b"], 3) == (2, ["a", "b"])
    assert module.drawn([], 3) == (0, [])
