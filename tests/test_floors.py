"""The base install in a real environment, with the oldest release of each package that pyproject.toml allows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUNDLE = ROOT / "export" / "models" / "mpnet"
SOURCES = ("edgeleaf", "pyproject.toml", "README.md", "LICENSE")


EXTRAS = ("distill", "optimum", "bench", "hub", "serve")


def floors() -> list[str]:
    """Each dependency at its floor: ``typer==0.15.4``."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [line.replace(">=", "==") for line in table["dependencies"]]


def test_each_dependency_has_a_floor_and_no_other_bound() -> None:
    assert all(re.fullmatch(r"[a-z]+==[0-9.]+", floor) for floor in floors())


def test_the_oldest_set_is_the_floors() -> None:
    """constraints-oldest.txt, which CI tests with, and the floors of pyproject.toml are the same promise."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = table["optional-dependencies"]
    lines = [*table["dependencies"], *(line for name in EXTRAS for line in extras[name])]
    promised = {name(line): version(line) for line in lines if not line.startswith("edgeleaf[")}
    tested = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    pinned = {name(line): version(line) for line in tested.splitlines() if "==" in line}
    assert all(pinned[package].startswith(floor) for package, floor in promised.items())
    newest = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert {name(line) for line in newest.splitlines() if "==" in line} >= promised.keys() - {"optimum", "optimum-onnx"}


def name(line: str) -> str:
    return re.split("[=>]=", line)[0].lower().replace("_", "-")


def version(line: str) -> str:
    return re.split("[=>]=", line.partition(";")[0])[1]


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the floors and edgeleaf, installed as a user does."""
    if not os.environ.get("EDGELEAF_REQUIRE_RUNTIMES"):
        pytest.skip("takes a package index and a minute; EDGELEAF_REQUIRE_RUNTIMES=1 runs it")
    folder = tmp_path_factory.mktemp("oldest")
    (source := folder / "source").mkdir()
    for part in SOURCES:  # built beside the checkout, not in it
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, source / part)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "v")], check=True)
    pip = [str(folder / "v/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *floors(), str(source)], check=True)
    return folder / "v" / "bin"


def run(bin_folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    left = {"PYTHONPATH", "PYTHONHOME"}
    kept = {name: value for name, value in os.environ.items() if name not in left}
    command = [str(bin_folder / "edgeleaf"), *map(str, arguments)]
    return subprocess.run(command, env=kept, cwd=bin_folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_command_explains_itself(oldest: Path) -> None:
    from edgeleaf.cli.main import COMMANDS

    for command in COMMANDS:
        name = command.__name__.removesuffix("_command")
        done = run(oldest, name, "--help")
        assert (done.returncode, done.stderr) == (0, ""), name
        assert f"edgeleaf {name} [OPTIONS]" in done.stdout
    assert run(oldest, "--version").stdout.startswith("edgeleaf 0.")


@pytest.mark.slow
def test_what_needs_no_extra_works(oldest: Path, tmp_path: Path) -> None:
    done = run(oldest, "encode", BUNDLE, "where is my parcel?")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["embedding"]) == 768
    script = f"""
from pathlib import Path
from edgeleaf import QueryEncoder
from edgeleaf.search import Index
encoder = QueryEncoder.load({str(BUNDLE)!r})
texts = ["a parcel that did not arrive", "cards and vouchers"]
Index(space=encoder.space, documents=[("d0", texts[0]), ("d1", texts[1])], vectors=encoder.encode(texts)).save(
    Path({str(tmp_path / "index")!r})
)
"""
    subprocess.run([str(oldest / "python"), "-c", script], check=True, cwd=oldest)
    done = run(oldest, "search", BUNDLE, tmp_path / "index", "lost parcel", "-k", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert [hit["id"] for hit in json.loads(done.stdout)["hits"]] == ["d0"]
    assert run(oldest, "info", BUNDLE).returncode == 0
    done = run(oldest, "doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["extras"]["base"]["state"] == "complete"


def test_what_needs_more_says_so_in_a_line(oldest: Path, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("one\ntwo\n")
    done = run(oldest, "index", BUNDLE, tmp_path / "c.txt", "-o", tmp_path / "i")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install 'edgeleaf[distill]'" in done.stderr
    done = run(oldest, "encode")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
