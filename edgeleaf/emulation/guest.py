"""Fetches what emulation needs, once, into the cache: qemu, and an aarch64 Python with onnxruntime and numpy.

Debian's packages come through a private apt with the system's sources and keys, Python's through pip. This needs no
root and leaves no trace on the system.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeleaf import progress
from edgeleaf.errors import EmulationError
from edgeleaf.files import cache_root

ONNXRUNTIME = "1.32.0"
NUMPY = "2.4.6"
"""The versions that constraints.txt pins, so that only the processors differ."""

WHEELS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
GUEST = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
IN_THE_WAY = ("usr/local", "usr/share", "usr/lib/python3")
"""Folders of the guest that Python does not need and that would hide this machine's folders of the same path."""

DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
_ABANDONED_AFTER_S = 6 * 3600

# Only this machine's sources and keys are used, nothing else of its apt: no state, no hooks, another architecture.
APT_CONFIG = """
#clear APT::Architectures;
#clear APT::Update;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::http::Timeout "30";
Dir::State "{folder}";
Dir::State::lists "lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
Dir::Cache::archives "archives";
"""


def guest_python(root: Path) -> Path:
    """The target of Debian's link /usr/bin/python3."""
    return root / "usr" / "bin" / Path.readlink(root / "usr" / "bin" / "python3")


def cache() -> Path:
    """Return the folder of everything that is fetched."""
    return cache_root() / "emulation"


def guest_folder() -> Path:
    """Return the folder where the aarch64 Python is, or will be."""
    return cache() / f"aarch64-onnxruntime-{ONNXRUNTIME}-numpy-{NUMPY}"


def find_qemu(architecture: str) -> str | None:
    """Return the emulator: one on PATH, under either name, or else the one in the cache, which may be older."""
    folders = (os.environ.get("PATH", os.defpath), str(cache() / "qemu"))
    names = ((name, folder) for folder in folders for name in _emulators(architecture))
    return next((found for name, folder in names if (found := shutil.which(name, path=folder))), None)


def _emulators(architecture: str) -> tuple[str, str]:
    return f"qemu-{architecture}-static", f"qemu-{architecture}"


def fetch_qemu(architecture: str) -> str:
    """Fetch Debian's emulators into the cache; return the one for an architecture."""
    progress.say("emulation: fetching qemu")
    with _temporary() as temporary:
        _debs(("qemu-user-static",), DEBIAN.get(platform.machine(), platform.machine()), temporary)
        (temporary / "qemu").mkdir()
        for name in (name for kind in DEBIAN for name in _emulators(kind)):  # of 33 emulators, which take 370 MB
            with suppress(FileNotFoundError):
                shutil.copy2(temporary / "root" / "usr" / "bin" / name, temporary / "qemu")
        _keep(temporary / "qemu", cache() / "qemu")
    found = find_qemu(architecture)
    if found is None:
        raise EmulationError(f"Debian package qemu-user-static holds no qemu-{architecture}: install one on PATH")
    return found


def fetch_guest(try_it: Callable[[Path], subprocess.CompletedProcess[str]]) -> None:
    """Fetch Python, onnxruntime and numpy for aarch64 into the cache; keep them if ``try_it`` exits with 0."""
    progress.say(f"emulation: fetching Python, onnxruntime {ONNXRUNTIME} and numpy {NUMPY} for aarch64")
    with _temporary() as temporary:
        guest = temporary / "guest"
        guest.mkdir()
        _debs(GUEST, DEBIAN["aarch64"], guest)
        for name in IN_THE_WAY:
            shutil.rmtree(guest / "root" / name, ignore_errors=True)
        if not (guest / "root" / "lib").exists():  # newer releases link it from a package that is not fetched
            (guest / "root" / "lib").symlink_to("usr/lib")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary=:all:", "--target", str(guest / "packages"), "--implementation", "cp"]
        pip += ["--python-version", guest_python(guest / "root").name.removeprefix("python")]
        pip += [option for wheel in WHEELS for option in ("--platform", wheel)]
        _do([*pip, f"onnxruntime=={ONNXRUNTIME}", f"numpy=={NUMPY}"])
        result = try_it(guest)
        if result.returncode:
            last = (result.stderr.strip() or f"exit status {result.returncode}").splitlines()[-1]
            raise EmulationError(
                f"{find_qemu('aarch64')} does not run the aarch64 Python ({last}): try another qemu on PATH"
            )
        _keep(guest, guest_folder())


@contextmanager
def _temporary() -> Iterator[Path]:
    """Yield a temporary folder in the cache; also remove those that killed processes left behind."""
    cache().mkdir(parents=True, exist_ok=True)
    for leftover in cache().glob(".fetch-*"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache()) as folder:
        yield Path(folder)


def _keep(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, with the same files
            raise


def _debs(packages: Sequence[str], architecture: str, folder: Path) -> None:
    """Download Debian packages and their dependencies, and unpack them into ``folder/root``."""
    apt = folder / "apt"
    (apt / "archives" / "partial").mkdir(parents=True)
    (apt / "lists" / "partial").mkdir(parents=True)
    (apt / "status").touch()
    (apt / "config").write_text(APT_CONFIG.format(architecture=architecture, folder=apt))
    get = ["apt-get", "-c", str(apt / "config"), "-q", "-y"]
    _do([*get, "update"], check=False)  # fails if any source lacks this architecture
    _do([*get, "--download-only", "install", *packages])
    for deb in sorted((apt / "archives").glob("*.deb")):
        _do(["dpkg", "-x", str(deb), str(folder / "root")])
    shutil.rmtree(apt)


def _do(command: Sequence[str], *, check: bool = True) -> None:
    name = "pip" if "pip" in command else command[0]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False
        )
    except FileNotFoundError:
        raise EmulationError(
            f"setting up emulation takes {name}, which this machine lacks: use Debian, Ubuntu or a container of one"
        ) from None
    if not check or result.returncode == 0:
        return
    lines = [line for line in result.stderr.splitlines() if "://" not in line and "host=" not in line]
    errors = [line for line in lines if line.startswith(("E: ", "ERROR: "))] or lines[-1:]
    reason = errors[0].partition(": ")[2] if errors else f"exit status {result.returncode}"
    raise EmulationError(f"{name} could not set up emulation ({reason}): check the network and {name}'s sources")
