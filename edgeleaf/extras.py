"""The packages that each command needs besides numpy and onnxruntime, and the error if they are missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from edgeleaf.errors import MissingExtra, reason_of

_TEACHER = ("torch", "transformers", "sentence_transformers")
_PAGE = ("jinja2", "matplotlib")
_EXPORT = (*_TEACHER, "tokenizers", "onnx", "onnxscript", *_PAGE)
NEEDS: Mapping[str, tuple[str, ...]] = {
    "run": (*_EXPORT, "datasets", "accelerate"),
    "adapt": (*_EXPORT, "datasets", "accelerate"),
    "distill": (*_TEACHER, "tokenizers", "datasets", "accelerate"),
    "vectors": (*_TEACHER, "tokenizers"),
    "teach": (*_TEACHER, "tokenizers", "datasets", "accelerate", "safetensors"),
    "teach with labels": ("bm25s",),
    "export": _EXPORT,
    "export by optimum": ("optimum",),
    "export --languages": ("wordfreq",),
    "check": (*_TEACHER, "tokenizers", "onnx"),
    "check -o": _PAGE,
    "check --collection": ("ir_measures",),
    "check --sts": ("scipy",),
    "bench": _TEACHER,
    "fuse": ("tokenizers", "onnx"),
    "tokenize": ("onnx",),
    "tokenize --tokenizer": ("tokenizers",),
    "index": _TEACHER,
    "serve": ("starlette", "uvicorn", "httptools", "orjson", "prometheus_client"),
    "push": ("huggingface_hub", "onnx"),
    "ship": (*_TEACHER, "tokenizers", "onnx", "safetensors", *_PAGE),
}
"""Import names of the packages that a command needs besides edgeleaf's own. encode, search, info, doctor: none."""
STORES: Mapping[str, tuple[str, ...]] = {
    "sqlite": ("apsw", "sqlite_vec"),
    "postgresql": ("psycopg", "pgvector"),
    "usearch": ("usearch", "apsw"),
    "milvus": ("pymilvus",),
    "milvus in a file": ("pymilvus", "milvus_lite"),
    "search --hybrid in a folder": ("bm25s",),
}
"""The same for each kind of store, and for key words in a folder; the extra ``stores`` brings all."""
_ALL = {**NEEDS, **STORES}
RAY = ("ray", "fsspec", "pandas", "pyarrow")
"""What ``--engine ray`` adds to a command's own."""
BUILD_EXTRA = "distill"
EXTRA_OF: Mapping[str, str] = {
    "optimum": "optimum",
    "httpx2": "http",
    "huggingface_hub": "hub",
    "wordfreq": "languages",
    **dict.fromkeys(RAY, "ray"),
    **dict.fromkeys(NEEDS["serve"], "serve"),
    **{package: "stores" for packages in STORES.values() for package in packages},
}
"""The extra that brings a package, where it is another one."""
_WITH_BUILD = frozenset({"http", "hub", "optimum", "ray"})
"""Extras that bring what their commands need of BUILD_EXTRA too."""
_DISTRIBUTIONS = {"llama_index": "llama-index-core", "haystack": "haystack-ai"}
"""Names under which packages are installed, where these are other words than those of the import."""


def require(*commands: str, instead: str = "") -> None:
    """Raise MissingExtra if packages that commands need are not installed.

    Args:
        commands: keys of :data:`NEEDS` or :data:`STORES`, the command itself first.
        instead: what can be done without them, if anything.
    """
    needed = dict.fromkeys(name for command in commands for name in _ALL[command])
    if missing := [name for name in needed if not _is_there(name)]:
        raise MissingExtra(_message(commands[0].partition(" ")[0], missing) + (f", or {instead}" if instead else ""))


def missing_teacher() -> list[str]:
    """Return the names of the packages that a teacher needs and that are not installed."""
    return [_shown(name) for name in _TEACHER if not _is_there(name)]


def no_framework(error: ImportError, *, extra: str) -> MissingExtra:
    """Return the error for a framework whose import failed: not installed, or broken."""
    package = (error.name or "").partition(".")[0]
    if package and not _is_there(package):
        return MissingExtra(f"{_shown(package)} is not installed: pip install 'edgeleaf[{extra}]'")
    return MissingExtra(
        f"{extra} cannot be imported: {reason_of(error)}; install it again: pip install --upgrade 'edgeleaf[{extra}]'"
    )


def require_ray() -> None:
    """Raise MissingExtra if a package that ``--engine ray`` needs is not installed."""
    if missing := [name for name in RAY if not _is_there(name)]:
        raise MissingExtra(_message("--engine ray", missing))


def by_exporter(exporter: str) -> tuple[str, ...]:
    """Return the key of :data:`NEEDS` that an exporter adds to a command's own, if any."""
    return ("export by optimum",) if exporter == "optimum" else ()


def missing_line(error: ImportError) -> str:
    """Return what to install if an import failed because a package that a command needs is missing; else nothing."""
    package = (error.name or "").partition(".")[0]
    known = any(package in names for names in _ALL.values())
    return _message("this", [package]) if known and not _is_there(package) else ""


def _message(who: str, missing: Sequence[str]) -> str:
    extras = {EXTRA_OF.get(name, BUILD_EXTRA) for name in missing}
    if extras & _WITH_BUILD:
        extras.discard(BUILD_EXTRA)
    extra = ",".join(sorted(extras))
    names = ", ".join(map(_shown, missing))
    return f"{who} needs {names}, not installed: pip install 'edgeleaf[{extra}]'"


def _shown(package: str) -> str:
    return _DISTRIBUTIONS.get(package, package.replace("_", "-"))


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
