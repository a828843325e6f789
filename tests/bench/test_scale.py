"""bench.studies.scale: the steps of the study at a small size; memory does not hold the texts."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bench.studies import scale
from edgeleaf.pipeline import index
from edgeleaf.search import Index, folder, stored

COUNT, TEXT_BYTES = 6_000, 4_000
MOST_BYTES = 11_000_000
"""Less than half of the texts' bytes: a thousand texts at a time meet the window, and files have buffers."""


@pytest.fixture(autouse=True)
def _teacher_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "teacher_of", index.teacher_of)  # the study replaces it


def test_each_step_counts_what_it_should(tmp_path: Path) -> None:
    for name in ("new", "again", "changed", "search"):
        if name in ("new", "changed"):
            scale.write_corpus(tmp_path / "corpus.jsonl", 250, changed=name == "changed")
        assert scale.run_step(name, tmp_path, 250) > 0
    made = Index.load(tmp_path / "index")
    teacher = scale.Free(made.space)
    texts = [text for _, text in made.documents]
    assert np.abs(np.asarray(made.vectors) - teacher.encode(texts, kind="document")).max() < 1e-3
    assert sum(text.endswith(" and more") for text in texts) == 3


@pytest.mark.slow
def test_memory_holds_neither_the_texts_nor_the_passages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "POOL", 64)
    for module in (folder, stored):
        monkeypatch.setattr(module, "_ROWS", 1000)  # vectors are written so many at a time
    corpus, long = tmp_path / "corpus.jsonl", "word " * (TEXT_BYTES // 5)

    def write(more: str) -> None:
        with corpus.open("w", encoding="utf-8") as stream:
            for row in range(COUNT):
                stream.write(f'{{"_id": "d{row}", "text": "{row} {long}", "shelf": "{row}{more}"}}\n')

    def peak() -> int:
        tracemalloc.start()
        try:
            scale.indexed(corpus, tmp_path / "index")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    scale.write_corpus(tmp_path / "small.jsonl", 3)
    scale.indexed(tmp_path / "small.jsonl", tmp_path / "small")  # what is imported and made once
    write("")
    assert peak() < MOST_BYTES < COUNT * TEXT_BYTES / 2
    assert peak() < MOST_BYTES  # nothing new
    write("b")  # other metadata: each passage is renewed
    assert peak() < MOST_BYTES
