"""The facts about this machine on which latencies and vectors depend.

The runtime imports this module, so slow imports are made where they are used.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

KERNEL_FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Processor features that decide which kernels run."""


def machine() -> dict[str, Any]:
    """Return the facts that decide latency: processor, features that select kernels, cores, system, versions."""
    name, features = _processor()
    return {
        "processor": name,
        "architecture": platform.machine(),
        "features": features,
        "cores": os.cpu_count(),
        "governor": _governor(),
        "gpu": _gpu(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime"),
        "torch": _version("torch"),
    }


def usable_cores() -> int:
    """Return how many cores this process may use, which can be fewer than the machine has."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


PROCESSOR_KINDS: tuple[tuple[str, str], ...] = (
    *(("amx_int8", "x86-64-vnni"), ("avx512_vnni", "x86-64-vnni"), ("avx_vnni", "x86-64-vnni")),
    *(("avx2", "x86-64-v3"), ("sse4_2", "x86-64-v2")),
    *(("sme", "armv9"), ("i8mm", "armv8.6-i8mm"), ("asimddp", "armv8.2-dotprod"), ("asimd", "armv8.0")),
)
"""Features and kinds of processor, by how ONNX Runtime's kernels multiply bytes there; the first match counts.

AMX adds up exactly, as VNNI does; AVX-512 without VNNI saturates, as AVX2 does. The other kinds have the names under
which ``edgeleaf.emulation`` can emulate them, so that a machine with VNNI can certify a bundle for all of them.
"""
_SYSCTL = {
    **{"hw.optional.arm.FEAT_SME": "sme", "hw.optional.arm.FEAT_I8MM": "i8mm", "hw.optional.AdvSIMD": "asimd"},
    **{"hw.optional.arm.FEAT_DotProd": "asimddp", "hw.optional.avx2_0": "avx2", "hw.optional.sse4_2": "sse4_2"},
}
"""macOS's names for the features."""
_WINDOWS = {70: "sme", 66: "i8mm", 43: "asimddp", 19: "asimd", 40: "avx2", 38: "sse4_2"}
"""Windows' numbers for them, for IsProcessorFeaturePresent. VNNI has no number, so it counts as AVX2."""


def processor_kind() -> str:
    """Return the kind of this processor: a name of :data:`KINDS`, or the architecture if its features are unknown."""
    features = _processor()[1]
    return next((kind for feature, kind in PROCESSOR_KINDS if feature in features), platform.machine())


def _processor() -> tuple[str, list[str]]:
    fields: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    if sys.platform == "darwin":
        fields = _mac()
    elif sys.platform == "win32":
        fields = _windows()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    part = " ".join(f"{key} {fields[key]}" for key in ("CPU implementer", "CPU part") if key in fields)
    name = fields.get("model name") or part or platform.processor() or "not known"
    return name, [feature for feature in KERNEL_FEATURES if feature in flags]


def _mac() -> dict[str, str]:
    import subprocess

    with suppress(OSError):
        ask = ["sysctl", "machdep.cpu.brand_string", "hw.optional"]
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        facts = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
        flags = " ".join(feature for name, feature in _SYSCTL.items() if facts.get(name, "0").strip() != "0")
        return {"flags": flags, "model name": facts.get("machdep.cpu.brand_string", "")}
    return {}


def _windows() -> dict[str, str]:
    import ctypes

    with suppress(AttributeError, OSError):
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent  # type: ignore[attr-defined, unused-ignore]
        return {"flags": " ".join(feature for number, feature in _WINDOWS.items() if present(number))}
    return {}


def _gpu() -> str | None:
    """Return the name of the first NVIDIA GPU, or None if there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    import subprocess

    ask = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    names = done.stdout.strip().splitlines()
    return names[0] if done.returncode == 0 and names else None


def _governor() -> str | None:
    """Return how Linux chooses the first processor's clock; None if it does not tell, as in most virtual machines."""
    with suppress(OSError):
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text(encoding="ascii").strip()
    return None


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
