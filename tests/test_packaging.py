"""What is released: a wheel and a source archive of one version, without anything else, that work once installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from edgeleaf import __version__

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
BUNDLE = ROOT / "export" / "models" / "mpnet"
NOT_COPIED = (".*", "out", "dist", "build", "node_modules", "export", "target", "__pycache__", "*.egg-info")
INFO = f"edgeleaf-{__version__}.dist-info"
BESIDE = {
    *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "SECURITY.md", "pyproject.toml", "setup.cfg"),
    *("edgeleaf", "edgeleaf.egg-info"),
}
"""What a source archive holds at its top."""


def package_files() -> set[str]:
    """What the package consists of, by its place: code, pages, the mark that it is typed."""
    kinds = ("*.py", "*.html", "*.j2", "py.typed")
    return {path.relative_to(ROOT).as_posix() for kind in kinds for path in (ROOT / "edgeleaf").rglob(kind)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built beside the checkout, not in it."""
    folder = tmp_path_factory.mktemp("built")
    source = shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_COPIED))
    for place in ("export/models/mpnet/query_encoder.onnx", "edgeleaf/bundle/stray.onnx", "edgeleaf/vectors.npy"):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        (source / place).write_bytes(b"a model or vectors, which are left out")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


def test_one_version_names_both_files(built: Path) -> None:
    names = sorted(path.name for path in built.iterdir())
    assert names == [f"edgeleaf-{__version__}-py3-none-any.whl", f"edgeleaf-{__version__}.tar.gz"]


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
        metadata = wheel.read(f"{INFO}/METADATA").decode()
        commands = wheel.read(f"{INFO}/entry_points.txt").decode()
    assert {name for name in names if not name.startswith(f"{INFO}/")} == package_files()
    assert {"edgeleaf/py.typed", "edgeleaf/certify/certificate.html.j2", f"{INFO}/licenses/LICENSE"} <= names
    assert f"\nVersion: {__version__}\n" in metadata
    assert "edgeleaf = edgeleaf.cli.main:main" in commands


def test_the_source_archive_holds_what_the_wheel_is_built_from(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {name.partition("/")[0] for name in names} == BESIDE
    assert {name for name in names if name.startswith("edgeleaf/")} == package_files()


def test_twine_finds_nothing_to_say(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_version_needs_no_installation() -> None:
    """The version is in the code, so a checkout that is not installed has it too."""
    script = """
import importlib.metadata, sys

def not_installed(name):
    raise importlib.metadata.PackageNotFoundError(name)

importlib.metadata.distribution = not_installed
from edgeleaf.cli import main
sys.argv = ["edgeleaf", "--version"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"edgeleaf {__version__}\n", "")


ENCODE = """
import json, sys
from pathlib import Path
import numpy as np
import edgeleaf

assert Path(edgeleaf.__file__).is_relative_to(sys.prefix), edgeleaf.__file__
bundle = Path(sys.argv[1])
lines = (bundle / "golden.jsonl").read_text(encoding="utf-8").splitlines()
golden = [entry for entry in map(json.loads, lines) if "text" in entry]
vectors = edgeleaf.QueryEncoder.load(bundle).encode([entry["text"] for entry in golden])
expected = np.array([entry["embedding"] for entry in golden])
cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(expected, axis=1)
print(json.dumps({"texts": len(golden), "cosine_min": float(cosines.min())}))
"""


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an empty environment in which the wheel was installed as a user does it."""
    if not os.environ.get("EDGELEAF_REQUIRE_RUNTIMES"):
        pytest.skip("takes a package index and a minute; EDGELEAF_REQUIRE_RUNTIMES=1 runs it")
    bin_folder = tmp_path_factory.mktemp("installed") / "v" / "bin"
    subprocess.run([sys.executable, "-m", "venv", str(bin_folder.parent)], check=True)
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = run(bin_folder / "python", *pip, next(built.glob("*.whl")))
    assert done.returncode == 0, done.stderr
    return bin_folder


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program away from the checkout, which could otherwise be imported."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, env=kept, cwd=program.parent, capture_output=True, text=True, check=False)


def test_the_wheel_encodes_as_the_golden_vectors_say(installed: Path) -> None:
    done = run(installed / "python", "-c", ENCODE, BUNDLE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["texts"] > 70
    assert found["cosine_min"] > 0.9999
    done = run(installed / "python", "-m", "edgeleaf.bundle.golden", BUNDLE)
    assert (done.returncode, json.loads(done.stdout)["passed"]) == (0, True)


def test_the_installed_command_works(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "edgeleaf", "--version").stdout == f"edgeleaf {__version__}\n"
    done = run(installed / "edgeleaf", "encode", BUNDLE, "where is my parcel?")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["embedding"]) == 768
    (tmp_path / "documents.txt").write_text("lost parcel\n", encoding="utf-8")
    done = run(installed / "edgeleaf", "index", BUNDLE, tmp_path / "documents.txt", "-o", tmp_path / "index")
    assert done.returncode == 2
    assert done.stderr.startswith("edgeleaf: index needs torch, transformers, sentence-transformers, not installed")
    assert "matplotlib" not in done.stderr
