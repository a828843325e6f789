"""Each command in an environment with only certain packages: it runs, or names the package that it needs.

All other packages are made impossible to import, in every process that the command starts.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgeleaf import QueryEncoder, extras
from edgeleaf.errors import MissingExtra
from edgeleaf.search import Index
from tests.conftest import needs, needs_optimum

ROOT = Path(__file__).parent.parent
CLOSED = """
import json, os, sys

OPEN = {*json.loads(os.environ["TEST_OPEN_PACKAGES"]), "edgeleaf", *sys.stdlib_module_names}

class Closed:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        return self.finder.find_spec(name, path, target) if root in OPEN or root.startswith("_") else None

sys.meta_path[:] = map(Closed, sys.meta_path)
"""


@cache
def project() -> Mapping[str, list[str]]:
    """The requirements of edgeleaf, and of each extra, as pyproject.toml has them."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def installed_by(wanted: Iterable[str]) -> set[str]:
    """Return what can be imported once these requirements are installed, and what they require in turn."""
    waiting = [Requirement(line) for line in wanted]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in done:
            continue
        done.add(key)
        try:
            lines = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform or Python
            continue
        for line in lines:
            further = Requirement(line)
            chosen = [{"extra": extra} for extra in ("", *requirement.extras)]
            if further.marker is None or any(further.marker.evaluate(extra) for extra in chosen):
                waiting.append(further)
    names = {name for name, _ in done}
    importable = importlib.metadata.packages_distributions().items()
    return {root for root, owners in importable if names & {canonicalize_name(owner) for owner in owners}}


def run(folder: Path, importable: set[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command where only these packages, the standard library and edgeleaf can be imported."""
    (closed := folder / "closed").mkdir(exist_ok=True)
    (closed / "sitecustomize.py").write_text(CLOSED, encoding="utf-8")
    variables = {
        "PYTHONPATH": os.pathsep.join([str(closed), str(ROOT)]),
        "TEST_OPEN_PACKAGES": json.dumps(sorted(importable)),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "edgeleaf.cli", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, tiny_recipe: Path) -> dict[str, list[object]]:
    """Every command with arguments that are right."""
    folder = tmp_path_factory.mktemp("given")
    (corpus := folder / "corpus.txt").write_text("lost parcel\nopen file\nriver stone\n")
    encoder = QueryEncoder.load(tiny_bundle)
    Index(space=encoder.space, documents=[("a", "b")], vectors=encoder.encode(["b"])).save(folder / "found")
    student, out = tiny_bundle / "student", folder / "out"
    (folder / "pairs.tsv").write_text("query\tpositive\nwhere\there\nwhen\tnow\n")
    (teach := folder / "teach.toml").write_text(
        f'name = "x"\n[teach]\nmodel = "{student}"\nheld_out = 0\n[[teach.stages]]\n'
        '[[teach.stages.pairs]]\nfiles = ["pairs.tsv"]\n'
    )
    return {
        "encode": [tiny_bundle, "lost parcel"],
        "info": [tiny_bundle],
        "doctor": [],
        "search": [tiny_bundle, folder / "found", "lost parcel"],
        "run": [tiny_recipe, "-o", out],
        "distill": [tiny_recipe, "-o", out],
        "vectors": [tiny_recipe, corpus, "-o", folder / "v.npy", "--role", "query"],
        "teach": [teach, "-o", out],
        "adapt": [tiny_bundle, "--documents", corpus, "-o", out],
        "export": [student, "-o", out],
        "check": [tiny_bundle],
        "bench": [tiny_bundle, "--repeats", 2],
        "fuse": [student / "tokenizer.json", tiny_bundle / "onnx/model.onnx", "-o", folder / "o.onnx"],
        "tokenize": [tiny_bundle, "lost parcel"],
        "index": [tiny_bundle, corpus, "-o", folder / "index"],
        "ship": [tiny_bundle, "-o", out],
        "push": [tiny_bundle, "acme/queries"],
        "serve": [tiny_bundle],
    }


NOTHING_ELSE = ("encode", "info", "search", "doctor")


def test_every_command_is_tried_here(given: dict[str, list[object]]) -> None:
    from edgeleaf.cli.main import COMMANDS

    assert set(given) == {command.__name__.removesuffix("_command") for command in COMMANDS}
    assert set(given) - set(NOTHING_ELSE) == {command.partition(" ")[0] for command in extras.NEEDS}


@pytest.mark.parametrize("command", NOTHING_ELSE)
def test_what_uses_a_bundle_or_describes_this_machine_needs_no_extra(
    given: dict[str, list[object]], tmp_path: Path, command: str
) -> None:
    done = run(tmp_path, installed_by(project()[""]), command, *given[command])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(
    ("commands", "brings"),
    [
        (("index", "sqlite"), "distill,stores"),
        (("search --hybrid in a folder",), "stores"),
        (("export", "export by optimum"), "optimum"),
        (("push",), "hub"),
    ],
)
def test_all_extras_that_a_command_needs_are_named_together(
    monkeypatch: pytest.MonkeyPatch, commands: tuple[str, ...], brings: str
) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda package: False)
    with pytest.raises(MissingExtra, match=rf"pip install 'edgeleaf\[{brings}\]'$"):
        extras.require(*commands)


@pytest.mark.slow
def test_a_fused_file_is_timed_by_itself_without_an_extra(given: dict[str, list[object]], tmp_path: Path) -> None:
    done = run(tmp_path, installed_by(project()[""]), "bench", *given["bench"], "--alone", "--json")
    assert done.returncode == 0, done.stderr
    assert {entry["system"] for entry in json.loads(done.stdout)["systems"]} == {"fused"}


@pytest.mark.parametrize("command", sorted({command.partition(" ")[0] for command in extras.NEEDS}))
def test_other_commands_name_what_they_need(given: dict[str, list[object]], tmp_path: Path, command: str) -> None:
    done = run(tmp_path, installed_by(project()[""]), command, *given[command])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    names = [*extras.NEEDS[command], *(extras.NEEDS["tokenize --tokenizer"] if command == "tokenize" else ())]
    listed = ", ".join(name.replace("_", "-") for name in names)
    extra = {"serve": "serve", "push": "hub"}.get(command, "distill")
    assert done.stderr.startswith(f"edgeleaf: {command} needs {listed}, not installed: pip install 'edgeleaf[{extra}]'")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["tokenize", "fuse"])
def test_a_command_runs_with_what_it_says_it_needs(
    given: dict[str, list[object]], tmp_path: Path, command: str
) -> None:
    """And with what those packages require. sentence-transformers reads the list of installed packages: not tried."""
    needs = [*extras.NEEDS[command], *(extras.NEEDS["tokenize --tokenizer"] if command == "tokenize" else ())]
    wanted = [*project()[""], *(name.replace("_", "-") for name in needs)]
    arguments = [*given[command], *(["--max-length", 48] if command == "fuse" else [])]
    done = run(tmp_path, installed_by(wanted), command, *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_index_needs_nothing_that_only_exports_and_pages_need(
    given: dict[str, list[object]], tmp_path: Path
) -> None:
    importable = installed_by([*project()[""], *project()[extras.BUILD_EXTRA]])
    done = run(tmp_path, importable - {"matplotlib", "onnx", "onnxscript", "ir_measures"}, "index", *given["index"])
    assert done.returncode == 0, done.stderr


def test_the_extra_brings_every_package_that_a_command_names() -> None:
    brought = installed_by([*project()[""], *project()[extras.BUILD_EXTRA]])
    serving = set(extras.NEEDS["serve"])
    others = {"optimum", "wordfreq"} | serving | {*extras.NEEDS["teach with labels"]}
    assert {name for names in extras.NEEDS.values() for name in names} - others <= brought
    assert {*extras.NEEDS["teach with labels"]} <= installed_by([*project()[""], *project()["bench"]])
    assert serving <= installed_by([*project()[""], *project()["serve"]])
    assert {*extras.NEEDS["export --languages"]} <= installed_by([*project()[""], *project()["languages"]])
    assert set(extras.NEEDS["push"]) <= installed_by([*project()[""], *project()["hub"]])
    assert {*extras.RAY, "s3fs"} <= installed_by([*project()[""], *project()["ray"]]) or find_spec("ray") is None


def test_the_other_exporter_has_an_extra_of_its_own() -> None:
    needs_optimum()
    assert "optimum" in installed_by(project()["optimum"])


def test_packages_are_named_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda name: name not in ("torch", "matplotlib"))
    with pytest.raises(MissingExtra, match="^index needs torch, not installed: pip install"):
        extras.require("index")
    with pytest.raises(MissingExtra, match="^check needs torch, matplotlib, not installed"):
        extras.require("check", "check -o")
    extras.require("fuse")
    monkeypatch.setattr(extras, "_is_there", lambda name: name != "optimum")
    extras.require("export", *extras.by_exporter("torch"))
    with pytest.raises(MissingExtra, match=r"^export needs optimum, not installed: pip install 'edgeleaf\[optimum\]'$"):
        extras.require("export", *extras.by_exporter("optimum"))


def test_modules_outside_building_import_without_an_extra(tmp_path: Path) -> None:
    script = """
import pkgutil
from importlib import import_module
import edgeleaf

for name in edgeleaf.__all__:
    getattr(edgeleaf, name)
BUILDING = ("edgeleaf.graph.", "edgeleaf.training.", "edgeleaf.integrations.", "edgeleaf.server.")
for part in pkgutil.walk_packages(edgeleaf.__path__, "edgeleaf.", onerror=lambda name: None):
    if not part.name.endswith("__main__") and not part.name.startswith(BUILDING):
        import_module(part.name)
"""
    (closed := tmp_path / "closed").mkdir()
    (closed / "sitecustomize.py").write_text(CLOSED, encoding="utf-8")
    variables = {
        "PYTHONPATH": os.pathsep.join([str(closed), str(ROOT)]),
        "TEST_OPEN_PACKAGES": json.dumps(sorted(installed_by(project()[""]))),
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_test_is_skipped_where_everything_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGELEAF_REQUIRE_RUNTIMES", raising=False)
    needs("numpy")
    with pytest.raises(pytest.skip.Exception, match="^not installed: no_such_package$"):
        needs("numpy", "no_such_package")
    monkeypatch.setenv("EDGELEAF_REQUIRE_RUNTIMES", "1")
    needs("numpy")
    with pytest.raises(pytest.fail.Exception, match="is set and not installed: no_such_package"):
        needs("no_such_package")
