"""Finds the code behind a stage's result: the function that makes it, and everything that the function imports."""

from __future__ import annotations

import ast
import hashlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = "edgeleaf"
SILENT = frozenset(
    {
        "edgeleaf",
        "edgeleaf.errors",
        "edgeleaf.progress",
        "edgeleaf.recipe.specs",
        "edgeleaf.recipe.teachers",
        "edgeleaf.stages.runner",
        "edgeleaf.version",
    }
)
"""Modules that change no result: they only report, or describe values that are a stage's inputs."""
PARTS = (
    "onnx",
    "onnxruntime",
    "optimum",
    "optimum-onnx",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)
"""Installed packages whose version can change a result of the code that imports them."""
BRINGS = {
    "sentence_transformers": ("sentence-transformers", "torch", "transformers", "tokenizers"),
    "optimum": ("optimum", "optimum-onnx", "torch", "transformers"),
    "transformers": ("transformers", "tokenizers", "torch"),
}
"""Import names that also import others of :data:`PARTS`."""

Start = tuple[str, str]
"""A module and the name of a function or class in it."""


class Sources:
    """The source files of edgeleaf, read once; they are the same wherever it is installed.

    Args:
        root: the folder that contains the package's folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path(__file__).resolve().parents[2]
        self._trees: dict[str, ast.Module] = {}
        self._texts: dict[str, bytes] = {}

    @cached_property
    def _paths(self) -> Mapping[str, Path]:
        paths = sorted((self._root / PACKAGE).rglob("*.py"))
        names = (".".join(path.relative_to(self._root).with_suffix("").parts) for path in paths)
        return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}

    def text(self, module: str) -> bytes:
        """Return a module's source, with line ends that do not depend on how it was checked out."""
        if module not in self._texts:
            self._texts[module] = self._paths[module].read_bytes().replace(b"\r\n", b"\n")
        return self._texts[module]

    def tree(self, module: str) -> ast.Module:
        """Return a module's syntax tree."""
        if module not in self._trees:
            self._trees[module] = ast.parse(self.text(module))
        return self._trees[module]

    def digest(self, make: Callable[..., object]) -> dict[str, str]:
        """Return what a stage's function depends on: the code's sha256, and the version of each package it imports.

        In the module that defines the function, the function and what it uses there count; modules that they import
        count as a whole. Functions of packages other than edgeleaf do not count.
        """
        pieces: dict[str, bytes] = {}
        outside: set[str] = set()
        waiting: list[str] = []
        for module, name in sorted(set(starts_of(make))):
            if module in self._paths:
                pieces[f"{module}:{name}"], used = self._own(module, name)
                waiting += self._targets(used, outside)
        while waiting:
            module = waiting.pop()
            if module not in pieces and module not in SILENT:
                pieces[module] = self.text(module)
                waiting += self._targets([self.tree(module)], outside)
        found = hashlib.sha256()
        for name, source in sorted(pieces.items()):
            found.update(f"{name} {len(source)}\n".encode() + source)
        return {"code": found.hexdigest(), **versions(outside)} if pieces else {}

    def _own(self, module: str, name: str) -> tuple[bytes, list[ast.AST]]:
        """Return the source of a function with all that it uses in its own module, and the nodes of that source."""
        lines = self.text(module).split(b"\n")
        defined: dict[str, ast.stmt] = {}
        imports: dict[str, ast.stmt] = {}
        for node in self.tree(module).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports |= {(alias.asname or alias.name).partition(".")[0]: node for alias in node.names}
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                defined |= {name: node for target in targets for name in _names(target)}
        used: dict[int, ast.stmt] = {}
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if (found := defined.get(name) or imports.get(name)) and found.lineno not in used:
                used[found.lineno] = found
                waiting += _names(found)
        source = []
        for _, node in sorted(used.items()):
            first = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", ()))])
            source += lines[first - 1 : node.end_lineno]
        return b"\n".join(source), list(used.values())

    def _targets(self, nodes: Iterable[ast.AST], outside: set[str]) -> list[str]:
        """Return the modules of edgeleaf that the nodes import; names of other modules are put into ``outside``."""
        found = []
        for node in _walk(nodes):
            if isinstance(node, ast.Import):
                names = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [(node.module, alias.name) for alias in node.names]
            else:
                continue
            for module, name in names:
                inner = f"{module}.{name}"
                if module.partition(".")[0] != PACKAGE:
                    outside.add(module.partition(".")[0])
                elif inner in self._paths:
                    found.append(inner)
                elif module in self._paths:
                    found.append(module)
        return found


def starts_of(make: Callable[..., object]) -> Iterator[Start]:
    """Yield the functions and classes of edgeleaf that a stage's function is, calls by name or refers to."""
    if not isinstance(make, types.FunctionType):
        yield from _place(getattr(make, "func", make))
        return
    if make.__name__ != "<lambda>" and "<locals>" not in make.__qualname__:
        yield from _place(make)
        return
    codes = [make.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        for name in code.co_names:
            found = make.__globals__.get(name)
            of_module = (getattr(found, part, None) for part in code.co_names)
            for value in of_module if isinstance(found, types.ModuleType) else (found,):
                yield from _place(value)
    for cell in make.__closure__ or ():
        try:
            held = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
        if isinstance(held, types.FunctionType) and held is not make:
            yield from starts_of(held)
        else:
            yield from _place(held)


def versions(imported: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each of :data:`PARTS` that is among the imported names, or imported by one."""
    names = {part for name in imported for part in BRINGS.get(name, (name.replace("_", "-"),))}
    found = {}
    for name in sorted(names.intersection(PARTS)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _place(value: Any) -> Iterator[Start]:
    """Return module and name of edgeleaf's function or class, or of an object's class; values are a stage's inputs."""
    if not isinstance(value, type | types.FunctionType):
        if is_dataclass(value):
            return
        value = type(value)
    module = str(getattr(value, "__module__", ""))
    if module.partition(".")[0] == PACKAGE and module not in SILENT:
        yield module, value.__qualname__.partition(".")[0]


def _names(node: ast.AST) -> list[str]:
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def _walk(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield every node except those that are there for type checkers only."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)
