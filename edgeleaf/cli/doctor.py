"""``edgeleaf doctor``: the facts about a machine that a bug report needs, in one command and without secrets.

It prints no environment variables except the switches of :data:`edgeleaf.quiet.PARTS`, and paths without the user's
name.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypedDict

from edgeleaf import quiet
from edgeleaf.bundle.machine import machine, processor_kind
from edgeleaf.cli.options import AsJson, print_json, print_table
from edgeleaf.errors import reason_of
from edgeleaf.files import cache_root
from edgeleaf.version import __version__

BESIDE = ("huggingface-hub", "onnxruntime-gpu")
"""Packages that no extra names, but that still decide what happens."""
BASE = "base"
"""The name of the base install among the extras."""


class Extra(TypedDict):
    """How much of an extra is installed: all in a release that is new enough, some of it, nothing."""

    state: Literal["complete", "incomplete", "absent"]
    lacking: list[str]


def doctor_command(as_json: AsJson = False) -> None:
    """Describe this installation for a bug report: versions, processor, caches, what may send reports. No secrets."""
    found = diagnosis()
    print_json(found) if as_json else print_table(_table(found))


def diagnosis() -> dict[str, Any]:
    """Return the facts about this installation as plain values; sizes in MB, ``None`` if there is nothing."""
    here = machine()
    versions, extras = _installed()
    return {
        "edgeleaf": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": {"name": here["processor"], "kind": processor_kind(), "cores": here["cores"], "gpu": here["gpu"]},
        "onnxruntime": _onnxruntime(),
        "packages": versions,
        "extras": extras,
        "caches": [
            _cache(name, path) for name, path in (("edgeleaf", cache_root()), ("Hugging Face hub", hub_cache()))
        ],
        "reports": [_report(part) for part in quiet.PARTS],
    }


def without_name(text: str) -> str:
    """Return a path, or a text with paths, without the user's name: the home folder is ``~``, other places ``USER``."""
    home = Path.home()
    homes = {str(place) for place in (home, home.resolve()) if place.name}  # in a container it may be /
    names = {home.name, *(os.environ.get(name, "") for name in ("LOGNAME", "USER", "USERNAME"))} - {""}
    for known in sorted(homes, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(known)}(?![\w.-])", "~", text, flags=re.IGNORECASE)
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<=[\\/]){re.escape(name)}(?![\w.-])", "USER", text, flags=re.IGNORECASE)
    return text


def hub_cache() -> Path:
    """Return the folder where huggingface_hub keeps models, by its own rules; it need not be installed."""
    given = os.environ
    cache = given.get("XDG_CACHE_HOME") or "~/.cache"
    home = given.get("HF_HOME") or f"{cache}/huggingface"
    folder = given.get("HF_HUB_CACHE") or given.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(folder)).expanduser().absolute()


def _onnxruntime() -> dict[str, Any]:
    try:
        loaded = quiet.onnxruntime()
    except Exception as error:  # a library that is missing, another processor, a half removed package
        return {"version": None, "providers": [], "error": without_name(reason_of(error) or type(error).__name__)}
    return {"version": loaded.__version__, "providers": list(loaded.get_available_providers()), "error": None}


def _installed() -> tuple[dict[str, str], dict[str, Extra]]:
    """Return the version of each package that is there, and how much of the base install and of each extra is.

    Extras are those that the installed edgeleaf has; in a folder that nobody has installed there are none.
    """
    try:
        facts = metadata.metadata("edgeleaf")
    except metadata.PackageNotFoundError:
        return _versions(("numpy", "onnxruntime", "rich", "typer", *BESIDE)), {}
    lines = facts.get_all("Requires-Dist") or []
    wanted = {extra or BASE: _requirements(lines, extra) for extra in ("", *(facts.get_all("Provides-Extra") or []))}
    versions = _versions([*(name for floors in wanted.values() for name in floors), *BESIDE])
    return versions, {extra: _extra(floors, versions) for extra, floors in wanted.items()}


def _requirements(lines: Sequence[str], extra: str) -> dict[str, str]:
    """Return the packages that an extra brings and their oldest releases, those of extras inside it included.

    Reads the form that edgeleaf's own metadata has: ``torch>=2.6; extra == "distill"``.
    """
    found: dict[str, str] = {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        of = re.search(r"""extra == ["'](.+?)["']""", marker)
        if (of[1] if of else "") != extra:
            continue
        if inside := re.match(r"edgeleaf\[(.+)\]", requirement):
            for name in inside[1].split(","):
                found |= _requirements(lines, name.strip())
        elif named := re.match(r"([\w.-]+)(?:>=([\d.]+))?", requirement):
            found[named[1]] = named[2] or "0"
    return found


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in sorted(set(names)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _extra(floors: Mapping[str, str], versions: Mapping[str, str]) -> Extra:
    """Return what is missing or too old, as ``torch>=2.6 (2.1 is installed)``."""
    lacking = []
    for name, floor in floors.items():
        version = versions.get(name)
        if version is None:
            lacking.append(f"{name}>={floor}")
        elif _numbers(version) < _numbers(floor):
            lacking.append(f"{name}>={floor} ({version} is installed)")
    if not lacking:
        return {"state": "complete", "lacking": []}
    return {"state": "incomplete" if set(floors) & set(versions) else "absent", "lacking": lacking}


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers a version starts with, without zeros at the end: 2.0 is 2."""
    start = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in start[0].split(".")] if start else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _cache(name: str, path: Path) -> dict[str, Any]:
    try:
        there = path.is_dir()
    except OSError:  # closed to us
        there = False
    size = round(_bytes(path) / 1e6, 1) if there else None
    return {"name": name, "path": without_name(str(path)), "exists": there, "size_mb": size}


def _bytes(folder: Path) -> int:
    """Return what a folder's files hold; links count nothing, as the hub's cache links each file a second time."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            try:
                total += 0 if path.is_symlink() else path.stat().st_size
            except OSError:  # gone since, or closed to us
                continue
    return total


def _report(part: quiet.Part) -> dict[str, Any]:
    """Return whether a package may send reports to its maker when edgeleaf uses it, and by which switch."""
    installed = bool(_versions([part.package.replace("_", "-")])) or part.package in sys.modules
    wanted = quiet.wanted(part)
    switch = f"{part.variable}={os.environ[part.variable].strip().lower() if wanted else part.quiet}"
    if part is quiet.ONNXRUNTIME and sys.platform == "win32" and not wanted:
        switch = "disable_telemetry_events()"  # the variable has no effect there
    return {
        "package": part.package,
        "installed": installed,
        "may_report": installed and wanted,
        "switch": switch,
    }


def _table(found: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(show_header=False, title="edgeleaf doctor")
    processor, ort = found["processor"], found["onnxruntime"]
    gpu = f", {processor['gpu']}" if processor["gpu"] else ""
    rows = [
        ("edgeleaf", found["edgeleaf"]),
        ("Python", found["python"]),
        ("platform", found["platform"]),
        ("processor", f"{processor['name']}, {processor['cores']} cores{gpu}"),
        ("processor kind", processor["kind"]),
        ("onnxruntime", ort["version"] or f"cannot be loaded: {ort['error']}"),
        ("providers", ", ".join(ort["providers"]) or "none"),
        ("packages", ", ".join(f"{name} {version}" for name, version in found["packages"].items())),
        *((f"extra {name}", _extra_line(extra)) for name, extra in found["extras"].items() if name != BASE),
    ]
    if found["extras"]:
        rows.insert(1, ("base install", _extra_line(found["extras"][BASE])))
    else:
        rows.insert(1, ("base install", "not installed, it runs from a folder; extras are not known"))
    rows += [(f"cache, {cache['name']}", _cache_line(cache)) for cache in found["caches"]]
    rows += [(f"telemetry, {report['package']}", _report_line(report)) for report in found["reports"]]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _extra_line(extra: Extra) -> str:
    if extra["state"] == "absent":
        return "not installed"
    return "complete" if extra["state"] == "complete" else f"incomplete, needs {', '.join(extra['lacking'])}"


def _cache_line(cache: Mapping[str, Any]) -> str:
    return f"{cache['path']}, {cache['size_mb']:,} MB" if cache["exists"] else f"{cache['path']}, not there"


def _report_line(report: Mapping[str, Any]) -> str:
    if not report["installed"]:
        return "none, it is not installed"
    if report["may_report"]:
        return f"may report to its maker: {report['switch']} asks for it"
    return f"off: edgeleaf sets {report['switch']}" if "=" in report["switch"] else f"off, by {report['switch']}"
