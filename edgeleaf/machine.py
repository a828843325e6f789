"""This machine, as far as latencies and vectors depend on it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

KERNEL_FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Processor features that decide which kernels run."""


def machine() -> dict[str, Any]:
    """Return what a latency depends on: processor, features that choose kernels, cores, system, versions."""
    name, features = _processor()
    return {
        "processor": name,
        "architecture": platform.machine(),
        "features": features,
        "cores": os.cpu_count(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime"),
        "torch": _version("torch"),
    }


def _processor() -> tuple[str, list[str]]:
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        if sys.platform == "darwin":
            ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
            fields["model name"] = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    part = " ".join(f"{key} {fields[key]}" for key in ("CPU implementer", "CPU part") if key in fields)
    name = fields.get("model name") or part or platform.processor() or "not known"
    return name, [feature for feature in KERNEL_FEATURES if feature in flags]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
