"""Imports run in one direction: a package may import itself and those before it in ORDER; no modules form a cycle."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = (
    "errors version progress quiet extras files places remote records values vectors | bundle | recipe | models | "
    "graph | texts | search | teachers | distributed | training | emulation | certify | latency | stages | pipeline | "
    "integrations | server | cli | __main__"
)
DECISION = ROOT / "docs" / "decisions" / "0008-layout.md"
FLOOR = {name: floor for floor, names in enumerate(ORDER.split("|")) for name in names.split()}
"""The lowest floor's modules may import each other, as long as there is no circle."""


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: frozenset[str]) -> list[tuple[int, str]]:
    """Return (line, module of edgeleaf) of every import in a file, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name in modules]
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((node.lineno, inner if inner in modules else node.module))
    return found


def violations(root: Path, package: str = "edgeleaf") -> list[str]:
    """Return a line for every import in the wrong direction and for every cycle of modules."""
    paths = {module_name(path, root): path for path in sorted((root / package).rglob("*.py"))}
    modules = frozenset(paths)
    found, arrows = [], {}
    for module, path in paths.items():
        arrows[module] = imports_of(path, modules)
        if module == package:  # the public names, which the command line uses
            continue
        own = module.split(".")[1]
        if own not in FLOOR:
            found.append(f"{path.relative_to(root)}: package {own} has no place in ORDER")
            continue
        for line, target in arrows[module]:
            if target == package:
                if own != "cli":
                    found.append(f"{path.relative_to(root)}:{line}: {module} imports {package} itself")
                continue
            other = target.split(".")[1]
            if (other != own and FLOOR.get(other, -1) >= FLOOR[own] > 0) or (
                FLOOR[own] == 0 and FLOOR.get(other, -1) > 0
            ):
                found.append(f"{path.relative_to(root)}:{line}: {own} must not import {other} ({target})")
    return found + circles({module: {target for _, target in found} for module, found in arrows.items()})


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Return a line for each cycle that a walk along the imports finds."""
    found, done = [], set[str]()

    def walk(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            found.append(f"circle: {' -> '.join((*way[way.index(module) :], module))}")
            return
        if module not in done:
            for target in sorted(arrows.get(module, ())):
                walk(target, (*way, module))
            done.add(module)

    for module in sorted(arrows):
        walk(module, ())
    return found


def test_imports_run_one_way() -> None:
    assert violations(ROOT) == []


OUTSIDE = (".ci", "android_demo", "bench", "examples", "export", "tests", "web_demo")
"""Folders of scripts, which mypy does not read, or not all."""


def names_of(module: str) -> set[str]:
    """Return what a module of this repository binds, anywhere but inside functions and classes, and its submodules."""
    folder = ROOT.joinpath(*module.split("."))
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    found = {part.stem for part in folder.iterdir()} if folder.is_dir() else set[str]()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))] if path.is_file() else []
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        todo += ast.iter_child_nodes(node)
    return found


def missing_names(script: Path) -> list[str]:
    """Return what a script imports from this repository that is not there."""
    nodes = ast.walk(ast.parse(script.read_text(encoding="utf-8")))
    wanted = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    ours = [node for node in wanted if str(node.module).partition(".")[0] in ("edgeleaf", "bench", "tests")]
    return [f"{n.module}.{a.name}" for n in ours for a in n.names if a.name not in names_of(str(n.module))]


def test_what_scripts_import_is_there(tmp_path: Path) -> None:
    scripts = [path for folder in OUTSIDE for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts]
    lazy = {"edgeleaf"}  # its public names are looked up when they are used
    found = {str(path.relative_to(ROOT)): missing_names(path) for path in scripts}
    wrong = {path: [name for name in names if name.rpartition(".")[0] not in lazy] for path, names in found.items()}
    assert {path: names for path, names in wrong.items() if names} == {}
    script = tmp_path / "script.py"
    script.write_text("from edgeleaf.search.stored import HEADER\nfrom edgeleaf.vectors import unit_rows\n")
    assert missing_names(script) == ["edgeleaf.search.stored.HEADER"]


@pytest.mark.parametrize(
    ("place", "line", "message"),
    [
        ("vectors.py", "from edgeleaf.bundle.encoder import QueryEncoder", "vectors must not import bundle"),
        ("search/index.py", "    from edgeleaf.pipeline.run import run", "search must not import pipeline"),
        ("graph/export.py", "import edgeleaf.certify.certify", "graph must not import certify"),
        ("graph/builder.py", "from edgeleaf.graph import fuse", "circle: edgeleaf.graph.builder"),
    ],
)
def test_a_wrong_import_is_named(tmp_path: Path, place: str, line: str, message: str) -> None:
    for path in sorted((ROOT / "edgeleaf").rglob("*.py")):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    wrong = tmp_path / "edgeleaf" / place
    inside = f"\ndef wrong() -> None:\n{line}\n" if line.startswith(" ") else f"\n{line}\n"
    wrong.write_text(wrong.read_text(encoding="utf-8") + inside, encoding="utf-8")
    assert any(message in found for found in violations(tmp_path))


def test_the_bundle_package_imports_with_numpy_and_onnxruntime_alone() -> None:
    """In a separate process, packages that may be missing are made impossible to import."""
    script = """
import sys
from importlib.abc import MetaPathFinder

KNOWN = {"edgeleaf", "numpy", "onnxruntime"}

class Closed(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in KNOWN and root not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is not there", name=name)

import numpy, onnxruntime  # with whatever they themselves bring
sys.meta_path.insert(0, Closed())
import pkgutil
from importlib import import_module
import edgeleaf.bundle, edgeleaf.search
for package in (edgeleaf.bundle, edgeleaf.search):
    for part in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        import_module(part.name)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_decision_has_the_same_order() -> None:
    assert ORDER in " ".join(DECISION.read_text(encoding="utf-8").split())
