"""Other processors under qemu-user: the same Python, the same onnxruntime, the same file, another instruction set.

x86-64 guests run this machine's own Python. aarch64 guests run Debian's, with onnxruntime's aarch64 wheel, set up once,
without root and without a trace on the system, in ``$EDGELEAF_CACHE/emulation`` (``~/.cache/edgeleaf/emulation``). They
cannot start further processes. Results under emulation are valid; timings mean nothing.

``python -m edgeleaf.emulation armv8.0 -- -m edgeleaf.bundle.golden PACK`` runs Python with these arguments there.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeleaf.emulation.guest import (
    GUEST,
    NUMPY,
    ONNXRUNTIME,
    cache,
    fetch_guest,
    fetch_qemu,
    find_qemu,
    guest_folder,
    guest_python,
)
from edgeleaf.errors import EmulationError

CPUINFO = """processor\t: {number}
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 0

"""


@dataclass(frozen=True)
class Processor:
    """A processor to run on.

    Attributes:
        architecture: as ``platform.machine()`` names it; empty for this machine's processor, without emulation.
        model: the value of qemu's ``-cpu``.
        part, features: what an Arm kernel writes into /proc/cpuinfo. qemu 7.2 shows guests this machine's file instead.
            onnxruntime finds no Arm processor in it, and 1.28 to 1.32 then crash at import.
    """

    architecture: str = ""
    model: str = ""
    part: str = ""
    features: str = ""

    @property
    def own_python(self) -> bool:
        """Whether this machine's own Python runs on it."""
        return self.architecture in ("", platform.machine())


_ARMV8 = "fp asimd aes pmull sha1 sha2 crc32 cpuid"
_ARMV82 = f"{_ARMV8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"

NATIVE = "native"
PROCESSORS: Mapping[str, Processor] = {
    NATIVE: Processor(),
    "x86-64-v2": Processor("x86_64", "Nehalem"),
    # Without the features that qemu warns it cannot emulate; none of them affects arithmetic.
    "x86-64-v3": Processor("x86_64", "Haswell,-pcid,-x2apic,-tsc-deadline,-invpcid,-rtm,-hle"),
    "armv8.0": Processor("aarch64", "cortex-a53", "0xd03", _ARMV8),
    "armv8.2-dotprod": Processor("aarch64", "neoverse-n1", "0xd0c", _ARMV82),
    "armv8.6-i8mm": Processor("aarch64", "max,sve=off,sme=off", "0xd40", f"{_ARMV82} i8mm bf16"),
    # All features that qemu knows, SVE2, I8MM and SME included. No real part has all; Neoverse V2 is the nearest.
    "armv9": Processor("aarch64", "max", "0xd4f", f"{_ARMV82} sve sve2 i8mm bf16 sme"),
}


@dataclass(frozen=True)
class Emulation:
    """The emulators that :func:`prepare` has set up.

    Attributes:
        qemu: the path of the emulator of each architecture that was prepared.
        guest: the folder with Python for aarch64; ``None`` if that was not prepared.
    """

    qemu: Mapping[str, str]
    guest: Path | None = None

    def command(self, processor: str, argv: Sequence[str]) -> list[str]:
        """Return the command that runs Python with ``argv`` on a processor, its environment included.

        Raises:
            EmulationError: an unknown processor, or one that was not prepared.
        """
        kind = _processor(processor)
        source = str(Path(__file__).resolve().parent.parent.parent)
        if not kind.model:
            return ["env", _python_path(source, os.environ.get("PYTHONPATH")), sys.executable, *argv]
        if kind.architecture not in self.qemu or not (kind.own_python or self.guest):
            raise EmulationError(f"{processor} is not set up; prepare([{processor!r}]) does that")
        # numpy's OpenBLAS must detect the emulated processor, whatever was set for the real one.
        unset = ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]
        if kind.own_python or self.guest is None:
            variables = [_python_path(source, os.environ.get("PYTHONPATH"))]
            python = [sys.executable]
        else:
            unset += ["LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONHOME"]
            # The guest's packages come first, because packages for this machine may lie beside edgeleaf.
            variables = [_python_path(str(self.guest / "packages"), source), "PYTHONNOUSERSITE=1"]
            root = _root(self.guest, processor, kind)
            python = ["-L", str(root), str(guest_python(root))]
        environment = ["env", *(f"--unset={name}" for name in unset), *variables]
        return [*environment, self.qemu[kind.architecture], "-cpu", kind.model, *python, *argv]

    def run(
        self, processor: str, argv: Sequence[str], *, timeout_s: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with ``argv`` on a processor; return its exit status and output, even if it failed.

        Raises:
            EmulationError: like :meth:`command`, or no end within ``timeout_s``.
        """
        command = self.command(processor, argv)
        try:
            return subprocess.run(
                command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            raise EmulationError(f"{processor}: not finished after {timeout_s:g} s; give it a smaller task") from None


def missing(processors: Iterable[str] = tuple(PROCESSORS)) -> list[str]:
    """Return what :func:`prepare` would fetch for these processors, one line per item; nothing if all is there.

    Raises:
        EmulationError: an unknown processor, or one that this machine cannot emulate.
    """
    kinds = _emulated(processors)
    architectures = sorted({kind.architecture for kind in kinds if not find_qemu(kind.architecture)})
    lines = [f"qemu for {' and '.join(architectures)}: Debian package qemu-user-static, 63 MB"] if architectures else []
    if not all(kind.own_python for kind in kinds) and not guest_folder().is_dir():
        packages = f"Debian's {', '.join(GUEST)}, pip's onnxruntime {ONNXRUNTIME} and numpy {NUMPY}"
        lines.append(f"Python for aarch64: {packages}, 60 MB")
    return lines


def prepare(processors: Iterable[str] = tuple(PROCESSORS)) -> Emulation:
    """Set up what these processors need, unless it is there. This needs apt-get, dpkg, pip and a network.

    Raises:
        EmulationError: an unknown processor, one that this machine cannot emulate, a program that is missing, packages
            that cannot be reached, no space, or a guest that does not run. Nothing incomplete is kept.
    """
    kinds = _emulated(processors)
    try:
        qemu = {kind.architecture: find_qemu(kind.architecture) or fetch_qemu(kind.architecture) for kind in kinds}
        if all(kind.own_python for kind in kinds):
            return Emulation(qemu)
        if not guest_folder().is_dir():
            fetch_guest(
                lambda guest: Emulation(qemu, guest).run("armv8.0", ["-c", "import onnxruntime"], timeout_s=600)
            )
        return Emulation(qemu, guest_folder())
    except OSError as error:
        reason = error.strerror or error
        raise EmulationError(f"cannot set up emulation in {cache()}: {reason}; set EDGELEAF_CACHE") from error


def _processor(name: str) -> Processor:
    if name not in PROCESSORS:
        raise EmulationError(f"no processor {name!r}; there are {', '.join(PROCESSORS)}")
    return PROCESSORS[name]


def _emulated(names: Iterable[str]) -> list[Processor]:
    """Return those of the processors that need qemu, after checking that this machine can emulate them."""
    kinds = {name: kind for name in names if (kind := _processor(name)).model}
    for name, kind in kinds.items():
        if platform.system() != "Linux" or (kind.architecture == "x86_64" and not kind.own_python):
            where = "Linux" if kind.architecture == "aarch64" else "Linux on x86-64"
            raise EmulationError(f"{name} is emulated on {where}; this is {platform.system()} on {platform.machine()}")
    return list(kinds.values())


def _python_path(*folders: str | None) -> str:
    return "PYTHONPATH=" + os.pathsep.join(folder for folder in folders if folder)


def _root(guest: Path, name: str, processor: Processor) -> Path:
    """Return the root folder that the guest sees on a processor: its libraries, and that processor's /proc/cpuinfo."""
    root = guest / "processors" / name
    cores = range(os.cpu_count() or 1)
    text = "".join(CPUINFO.format(number=n, features=processor.features, part=processor.part) for n in cores)
    file = root / "proc" / "cpuinfo"
    if not file.is_file() or file.read_text() != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in ("usr", "lib"):
            with suppress(FileExistsError):
                (root / folder).symlink_to(Path("../../root", folder))
        temporary = file.with_name(f"cpuinfo-{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(file)
    return root
