"""The snippets of docs/frameworks.md run as they are written, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
BUNDLE, MODEL = "export/models/mpnet", "out/asymmetric"
SNIPPETS = re.findall(r"(?ms)^## (\S+)$.*?^```python\n(.*?)^```$", PAGE)


def test_each_framework_has_one() -> None:
    names = [name for name, _ in SNIPPETS]
    assert names == ["LangChain", "LlamaIndex", "Haystack", "txtai", "sentence-transformers"]
    assert PAGE.count("```python") == len(SNIPPETS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "snippet"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_it_runs(name: str, snippet: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """With the tiny bundle in the place of the reference one, whose teacher takes longer."""
    if MODEL in snippet:
        from edgeleaf import ship

        ship(tiny_bundle, output=tmp_path / MODEL, format="sentence-transformers")
    else:
        assert BUNDLE in snippet
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", snippet.replace(BUNDLE, str(tiny_bundle))]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\.\d{3}", done.stdout)
