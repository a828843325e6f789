"""The weight files of a model and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from edgeleaf.errors import ModelError
from edgeleaf.files import sha256


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
    files = {path.relative_to(folder).as_posix(): path for path in weight_files(folder)}
    if not files:
        raise ModelError(f"{folder} holds no weights: expected model.safetensors, its shards or pytorch_model.bin")
    if len(files) == 1:
        return sha256(next(iter(files.values())))
    lines = "".join(f"{name} {sha256(path)}\n" for name, path in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
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
