"""The app's documents: what is taken of a dictionary's entry, and what is left out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "android_demo" / "tools" / "documents.py"
ENTRY = """heisenbug
 /hi:'zen·buhg/, n.

    [from Heisenberg's Uncertainty Principle in quantum physics] A bug that
    disappears or alters its behavior when one attempts to probe or isolate it.
    Antonym of {Bohr bug}; see also {
    mandelbug}, {schroedinbug}. See {bug}.

"""


@pytest.fixture(scope="module")
def documents() -> ModuleType:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("documents", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_entry_becomes_a_term_and_its_definition(documents: ModuleType) -> None:
    assert documents.parsed(ENTRY) == (
        "heisenbug",
        "A bug that disappears or alters its behavior when one attempts to probe or isolate it. "
        "Antonym of Bohr bug; see also mandelbug, schroedinbug.",
    )


def test_a_long_definition_ends_with_a_sentence(documents: ModuleType) -> None:
    sentence = "One of many sentences of some length, all of which say the very same thing once more."
    term, body = documents.parsed(f"word\n n.\n\n    {' '.join([sentence] * 9)}\n")
    assert (term, body) == ("word", " ".join([sentence] * 2))


@pytest.mark.parametrize(
    "text",
    [
        "Too short to be of use.",
        f"Syn. for another word, {'which is told at some length and in many words ' * 2}.",
        f"Seen on the PDP-10, {'which is told at some length and in many words ' * 2}.",
        f"An act of masturbation, {'which is told at some length and in many words ' * 2}.",
    ],
)
def test_what_points_elsewhere_is_crude_or_long_gone_is_left_out(documents: ModuleType, text: str) -> None:
    assert documents.parsed(f"word\n n.\n\n    {text}\n") is None


def test_the_dictionarys_index_is_read(documents: ModuleType) -> None:
    assert [documents.number(digits) for digits in ("A", "/", "BA", "CD")] == [0, 63, 64, 131]
    dictionary = b"onetwo"
    assert documents.entries(dictionary, "00-database-info\tA\tA\ntwo\tD\tD\none\tA\tD\nuno\tA\tD\n") == ["one", "two"]


def test_another_package_is_refused_in_one_line(
    documents: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.deb").write_bytes(b"no package")
    command = ["documents.py", str(tmp_path / "out.jsonl"), "--package", str(tmp_path / "other.deb")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=r"other.deb is not Debian's package dict-jargon"):
        documents.main()
    assert not (tmp_path / "out.jsonl").exists()
