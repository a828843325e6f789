"""Texts in several forms: what each is made of, and that the same source gives the same texts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.studies import forms

SAID = [
    "However, the enzyme slows the growth of tumours, which surprised us.",
    "They were looking at the structure of heated supersonic aircraft when it rained.",
    "It rained.",
    "The mean pressure of a gas depends on the temperature of the walls.",
    "A treaty on the protection of birds was signed by the members of the northern council in spring.",
]
QUERIES = ["who wrote the book of laughter", "short one", "price of copper in spring 1990"]


def test_each_form_is_what_it_says() -> None:
    assert next(iter(forms.claims(SAID, []))) == "The enzyme slows the growth of tumours."
    assert list(forms.titles(SAID[1:2], [])) == ["structure of heated supersonic aircraft"]
    assert next(iter(forms.key_words(SAID[3:4], []))).split()[-1] in "mean pressure gas depends temperature walls"
    assert all(len(question.split()) > 2 for question in forms.questions(SAID * 4, []))
    assert all(post.count("?") == 1 for post in forms.posts(SAID * 4, []))
    for slipped, query in zip(forms.misspellings([], QUERIES[::2] * 9), QUERIES[::2] * 9, strict=False):
        assert slipped != query and abs(len(slipped) - len(query)) <= 2


def test_a_function_gives_a_search_and_its_code() -> None:
    source = (
        'class A:\n    def area(self, r):\n        "Return the area of a circle. Slow."\n        return 3.14 * r * r\n'
    )
    assert list(forms.functions(source)) == [
        "python return the area of a circle",
        "def area(self, r): return 3.14 * r * r",
    ]
    assert list(forms.functions("def broken(")) == []


def test_the_same_data_give_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def a_form(said: list[str], queries: list[str]) -> list[str]:
        return [text for text in said + queries for _ in range(2)]

    texts = {f"{name}.txt.gz": SAID for name in forms.PROSE} | {forms.QUERIES: QUERIES}
    monkeypatch.setattr(forms, "texts_of", lambda file: iter(texts[file.name]))
    monkeypatch.setattr(forms, "FORMS", {"twice": a_form, "key words": forms.key_words})
    for name in ("first", "second"):
        random.seed(name)
        monkeypatch.setattr("sys.argv", ["forms", "data", "-o", str(tmp_path / name), "--texts", "3"])
        forms.main()
    made = [(tmp_path / name / "twice.txt").read_text(encoding="utf-8") for name in ("first", "second")]
    assert made[0] == made[1]
    assert len(set(made[0].splitlines())) == 3
    monkeypatch.setattr("sys.argv", ["forms", "data", "-o", str(tmp_path / "more"), "--texts", "30"])
    with pytest.raises(SystemExit, match="twice: only 8 texts were found"):
        forms.main()
