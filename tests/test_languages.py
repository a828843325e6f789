"""The examples in other languages: `make languages` builds and runs them; here, what it compares and how it says so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import QUERY_ENCODER
from tests.test_web import web

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
__all__ = ["web"]


@pytest.fixture(scope="module")
def languages() -> Any:
    """The script that builds and runs the examples, as a module."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import languages as module

        return module
    finally:
        sys.path.remove(str(EXAMPLES))


def test_every_example_pins_its_package(languages: Any) -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == languages.BUILDERS.keys() == languages.TITLES.keys()
    for language in languages.BUILDERS:
        package, version = languages.pinned(language)
        assert package and re.fullmatch(r"\d+\.\d+\.\d+(-rc\.\d+)?", version), language
    assert languages.pinned("cpp")[1] == languages.pinned("java")[1]  # its library comes out of Java's package
    lock = json.loads((EXAMPLES / "node" / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"]["node_modules/onnxruntime-node"]["version"] == languages.pinned("node")[1]
    assert 'name = "ort"\nversion = "2.0.0-rc.12"' in (EXAMPLES / "rust" / "Cargo.lock").read_text(encoding="utf-8")
    package, version = languages.pinned("go")
    assert f"{package} v{version} h1:" in (EXAMPLES / "go" / "go.sum").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("go/main.go", ("ORT_DISABLE_TELEMETRY", '"\\x00", "\\ufffd"', "SetIntraOpNumThreads", "Close()", "batchSize")),
        ("rust/src/main.rs", ("ORT_DISABLE_TELEMETRY", "'\\0', \"\\u{fffd}\"", "with_intra_threads", "BATCH")),
        ("cpp/main.cpp", ("ORT_DISABLE_TELEMETRY", "\\xEF\\xBF\\xBD", "SetIntraOpNumThreads", "batch")),
        (
            "java/src/main/java/Encode.java",
            ("setTelemetry(false)", "UTF_8", "setIntraOpNumThreads", "close()"),
        ),
        ("node/main.mjs", ("ORT_DISABLE_TELEMETRY", '"\\0", "\\ufffd"', "intraOpNumThreads", "release()", "BATCH")),
        ("csharp/Program.cs", ("ORT_DISABLE_TELEMETRY", "'\\0', '\\ufffd'", "IntraOpNumThreads", "Dispose()", "batch")),
    ],
)
def test_every_example_has_what_a_program_needs(file: str, words: tuple[str, ...]) -> None:
    text = (EXAMPLES / file).read_text(encoding="utf-8")
    assert [word for word in words if word not in text] == []


def run(command: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    variables = {"PYTHONPATH": str(ROOT)}
    command = [*command, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)


@pytest.fixture(params=["python", "node"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A program that needs no compiler."""
    if request.param == "python":
        return [sys.executable, str(EXAMPLES / "python" / "main.py")]
    modules = request.getfixturevalue("web") / "node_modules"
    shutil.copyfile(EXAMPLES / "node" / "main.mjs", tmp_path / "main.mjs")
    (tmp_path / "node_modules").symlink_to(modules)
    return ["node", str(tmp_path / "main.mjs")]


def test_a_program_compares_every_bit(languages: Any, program: list[str], tiny_bundle: Path, tmp_path: Path) -> None:
    texts = [entry["text"] for entry in read_golden(tiny_bundle)]
    assert any("\0" in text for text in texts) and any(ord(max(text, default=" ")) > 0xFFFF for text in texts)
    vectors = QueryEncoder.load(tiny_bundle).encode(texts)
    model = tiny_bundle / QUERY_ENCODER
    done = run(program, model, languages.write_pack(tmp_path / "pack", texts, vectors))
    found = json.loads(done.stdout)
    assert (done.returncode, found["texts"], found["equal"]) == (0, len(texts), len(texts))
    assert found["p50_ms"] > 0
    vectors.view(np.uint32)[3, -1] ^= 1
    done = run(program, model, languages.write_pack(tmp_path / "changed", texts, vectors), 2)
    assert (done.returncode, json.loads(done.stdout)["equal"]) == (1, len(texts) - 1)


def test_the_table_says_what_did_not_run(languages: Any) -> None:
    ran = languages.Row("Go", "x/y", "1.2.3", equal=78, texts=79, p50_ms=2.345, cold_ms=301.0, size_mb=27.4)
    lines = languages.table([ran, languages.Row("C#", "Z", "4.5.6", why="dotnet not installed")]).splitlines()
    assert lines[2] == "| Go | `x/y` 1.2.3 | 78 of 79 | 2.3 ms | 301 ms | 27 MB |"
    assert lines[3] == "| C# | `Z` 4.5.6 | not run here | – | – | – |"


def test_a_vector_that_is_not_the_golden_one_stops_it(languages: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    text = (other / "golden.jsonl").read_text(encoding="utf-8")
    changed = re.sub(r'"embedding": \[(-?0\.\d+)', '"embedding": [0.987654', text, count=1)
    assert changed != text
    (other / "golden.jsonl").write_text(changed, encoding="utf-8")
    with pytest.raises(SystemExit, match="Python's vectors are .* from those of"):
        languages.golden_pack(other)


def test_the_bytes_file_gives_the_same_vectors(
    languages: Any, tiny_bundle: Path, utf8_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(languages, "WORK", tmp_path)
    texts = [entry["text"] for entry in read_golden(tiny_bundle)]
    encoder = QueryEncoder.load(languages.utf8_model(tiny_bundle))
    assert encoder.input == "utf8"
    np.testing.assert_array_equal(encoder.encode(texts), QueryEncoder.load(tiny_bundle).encode(texts))
    assert languages.utf8_model(utf8_bundle) == utf8_bundle / QUERY_ENCODER


def test_readme_names_every_language_and_package(languages: Any) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for language, title in languages.TITLES.items():
        package, version = languages.pinned(language)
        if language != "python":  # whose onnxruntime is whichever is installed
            assert f"| {title} | `{package}` {version} |" in readme
