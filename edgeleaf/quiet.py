"""Switches off the reports that some packages send to their makers by default. edgeleaf itself sends nothing.

``import edgeleaf`` calls :func:`silence` before any such package is loaded. This covers the library, the command line,
``python -m edgeleaf...``, and every process that they start, which inherits the variables. Whoever adds a package that
reports adds a line to :data:`PARTS`.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from edgeleaf.errors import TelemetryWarning
from edgeleaf.files import cache_root

ONNXRUNTIME_REPORTS_SINCE = (1, 29)
"""The first onnxruntime that reports on Linux and macOS by default."""
_NO = frozenset({"0", "false", "no", "off", "n"})
_YES = frozenset({"1", "true", "yes", "on", "y"})


@dataclass(frozen=True)
class Part:
    """A package that reports by default.

    Args:
        package: its import name.
        variable: the environment variable that it reads when it is loaded.
        quiet: the value that switches the reports off.
        reports: values, in lower case, with which a user asks for the reports; these are not changed.
    """

    package: str
    variable: str
    quiet: str
    reports: frozenset[str]


ONNXRUNTIME = Part("onnxruntime", "ORT_DISABLE_TELEMETRY", "1", _NO)
HAYSTACK = Part("haystack", "HAYSTACK_TELEMETRY_ENABLED", "false", _YES)
PARTS = (
    ONNXRUNTIME,
    Part("huggingface_hub", "HF_HUB_DISABLE_TELEMETRY", "1", _NO),
    # It sends a request to the hub for every data set that is loaded, even from local files.
    Part("datasets", "HF_UPDATE_DOWNLOAD_COUNTS", "0", _YES),
    # It asks the hub, in the background, to convert a model that has no safetensors file.
    Part("transformers", "DISABLE_SAFETENSORS_CONVERSION", "true", _NO),
    Part("ray", "RAY_USAGE_STATS_ENABLED", "0", _YES),
    HAYSTACK,
)


def silence() -> None:
    """Set every package's variable, unless the user asks for its reports.

    Warns:
        TelemetryWarning: onnxruntime was loaded earlier, in a version that reports, without its variable.
    """
    late = _late()
    for part in PARTS:
        if not wanted(part):
            os.environ[part.variable] = part.quiet
    if late:
        warnings.warn(
            f"onnxruntime {late} was imported before edgeleaf and may report to its maker; import edgeleaf first, or "
            f"set {ONNXRUNTIME.variable}=1 before the program starts ({ONNXRUNTIME.variable}=0 allows the reports)",
            TelemetryWarning,
            stacklevel=3,
        )
        onnxruntime()


def wanted(part: Part) -> bool:
    """Return whether the user has asked for a package's reports."""
    return os.environ.get(part.variable, "").strip().lower() in part.reports


def onnxruntime() -> Any:
    """Import onnxruntime and switch off what its variable does not cover: events on Windows and after a late import."""
    import onnxruntime

    if not wanted(ONNXRUNTIME):
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def haystack() -> None:
    """Switch off the reports of a haystack that was imported before edgeleaf; the first would come with a pipeline."""
    loaded: Any = sys.modules.get("haystack.telemetry._telemetry")
    if loaded is not None and not wanted(HAYSTACK):
        loaded.telemetry = None


def matplotlib_files() -> None:
    """Make matplotlib keep its list of fonts in edgeleaf's cache, if edgeleaf is the first to import it."""
    if "matplotlib" not in sys.modules:
        os.environ.setdefault("MPLCONFIGDIR", str(cache_root() / "matplotlib"))


def _late() -> str:
    """Return the version of an onnxruntime that the program has already loaded and that may report; else nothing.

    On Windows the variable would have changed nothing, so there is nothing to warn of.
    """
    loaded = sys.modules.get(ONNXRUNTIME.package)
    silent = os.environ.get(ONNXRUNTIME.variable, "").strip().lower() in _YES
    if loaded is None or silent or wanted(ONNXRUNTIME) or sys.platform == "win32":
        return ""
    version = str(getattr(loaded, "__version__", ""))
    numbers = version.split(".")[:2]
    known = len(numbers) == 2 and all(number.isdecimal() for number in numbers)
    return version if known and tuple(map(int, numbers)) >= ONNXRUNTIME_REPORTS_SINCE else ""
