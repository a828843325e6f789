"""The packages that each command needs besides numpy and onnxruntime, and the error if they are missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from edgeleaf.errors import MissingExtra

_TEACHER = ("torch", "transformers", "sentence_transformers")
_PAGE = ("jinja2", "matplotlib")
_EXPORT = (*_TEACHER, "tokenizers", "onnx", "onnxscript", *_PAGE)
NEEDS: Mapping[str, tuple[str, ...]] = {
    "run": (*_EXPORT, "datasets", "accelerate"),
    "adapt": (*_EXPORT, "datasets", "accelerate"),
    "distill": (*_TEACHER, "tokenizers", "datasets", "accelerate"),
    "export": _EXPORT,
    "export by optimum": ("optimum",),
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
    "ship": (*_TEACHER, "tokenizers", "onnx", "safetensors", *_PAGE),
}
"""Import names of the packages that a command needs besides edgeleaf's own. encode, search, info, doctor: none."""
BUILD_EXTRA = "distill"
EXTRA_OF: Mapping[str, str] = {"optimum": "optimum", **dict.fromkeys(NEEDS["serve"], "serve")}
"""The extra that brings a package, where it is another one; the extra optimum brings all of BUILD_EXTRA too."""


def require(*commands: str, instead: str = "") -> None:
    """Raise MissingExtra if packages that commands need are not installed.

    Args:
        commands: keys of :data:`NEEDS`, the command itself first.
        instead: what can be done without them, if anything.
    """
    needed = dict.fromkeys(name for command in commands for name in NEEDS[command])
    if missing := [name for name in needed if not _is_there(name)]:
        raise MissingExtra(_message(commands[0].partition(" ")[0], missing) + (f", or {instead}" if instead else ""))


def by_exporter(exporter: str) -> tuple[str, ...]:
    """Return the key of :data:`NEEDS` that an exporter adds to a command's own, if any."""
    return ("export by optimum",) if exporter == "optimum" else ()


def missing_line(error: ImportError) -> str:
    """Return what to install if an import failed because a package that a command needs is missing; else nothing."""
    package = (error.name or "").partition(".")[0]
    known = any(package in names for names in NEEDS.values()) or package == "huggingface_hub"
    return _message("this", [package]) if known and not _is_there(package) else ""


def _message(who: str, missing: Sequence[str]) -> str:
    extra = next((EXTRA_OF[name] for name in missing if name in EXTRA_OF), BUILD_EXTRA)
    names = ", ".join(name.replace("_", "-") for name in missing)
    return f"{who} needs {names}, not installed: pip install 'edgeleaf[{extra}]'"


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
