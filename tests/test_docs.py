"""Documents name only what exists: links, anchors, files, modules, commands; lines outside tables fit 120 columns."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in (
        *("*.md", "docs/**/*.md", "export/*.md", "bench/*.md", "web/*.md"),
        *("android_demo/*.md", "android_demo/*/*.md"),
    )
    for path in ROOT.glob(pattern)
    if path.name != "RESULTS.md"  # written by bench/peers/report.py
)
HISTORY = ROOT / "docs" / "log"
"""Entries of the log name what there was on their day."""


def fenced(text: str) -> str:
    return re.sub(r"(?ms)^\s*```.*?^\s*```", "", text)


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.*)$", fenced(path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(path: Path) -> list[str]:
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", fenced(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place) if place else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def missing_files(text: str) -> list[str]:
    names = re.findall(r"`((?:edgeleaf|bench|tests|web|web_demo|examples|export|docs)/[\w./-]+\.\w+|[\w/]+/)`", text)
    return [name for name in names if "/" in name.rstrip("/") and "NAME" not in name and not (ROOT / name).exists()]


def missing_modules(text: str) -> list[str]:
    names = {name.rstrip(".") for name in re.findall(r"python -m ((?:edgeleaf|bench|tests)[\w.]*)", text)}
    return [name for name in sorted(names) if importlib.util.find_spec(name) is None]


def missing_commands(text: str) -> list[str]:
    typer_main = pytest.importorskip("typer.main")
    from edgeleaf.cli.main import app

    commands = set(typer_main.get_command(app).commands)
    blocks = "\n".join(re.findall(r"(?ms)^\s*```.*?^\s*```", text))
    named = re.findall(r"(?m)^(?:\$ )?edgeleaf ([a-z]+)\b", blocks) + re.findall(r"`edgeleaf ([a-z]+)\b", text)
    return sorted(set(named) - commands)


def long_lines(text: str) -> list[int]:
    lines = enumerate(text.splitlines(), 1)
    return [n for n, line in lines if len(line) > 120 and not line.startswith(("|", "#")) and " " in line.strip()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert broken_links(path) == []
    assert long_lines(text) == []
    if HISTORY not in path.parents:
        assert missing_files(text) == []
        assert missing_modules(text) == []
        assert missing_commands(text) == []


def test_what_is_missing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#b) [c](c.md) `docs/none.md`\n", encoding="utf-8")
    assert broken_links(page) == ["#b", "c.md"]
    assert missing_files(page.read_text(encoding="utf-8")) == ["docs/none.md"]
    assert missing_modules("python -m bench.sme and python -m edgeleaf.cli") == ["bench.sme"]
    assert missing_commands("`edgeleaf encode` `edgeleaf sing`\n```\nedgeleaf hum\n```\n") == ["hum", "sing"]
    assert long_lines("| " + "a " * 99 + "\n" + "a " * 99) == [2]


def test_the_log_lists_each_page_once_and_each_of_its_entries() -> None:
    rows = re.findall(r"(?m)^\| \[.*?\]\((.*?)\) \| (.*) \|$", (HISTORY / "README.md").read_text(encoding="utf-8"))
    entries = {
        path.name: re.findall(r"(?m)^## (.*)$", path.read_text(encoding="utf-8"))
        for path in HISTORY.glob("*.md")
        if path.name != "README.md"
    }
    assert sorted(rows) == sorted((name, "; ".join(titles)) for name, titles in entries.items())


@pytest.mark.parametrize(
    "path", sorted(set(HISTORY.glob("*.md")) - {HISTORY / "README.md"}), ids=lambda path: path.name
)
def test_a_page_of_the_log_begins_alike(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# Log: ")
    assert "[All subjects](README.md)" in "\n".join(lines[:12])
    dates = [title[3:13] for title in lines if title.startswith("## ")]
    assert dates == sorted(dates, reverse=True)


def test_the_page_of_benchmarks_lists_every_study() -> None:
    text = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    studies = (ROOT / "bench" / "studies").glob("*.py")
    programs = [path.stem for path in studies if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    assert programs
    assert [name for name in sorted(programs) if f"bench.studies.{name}" not in text] == []
