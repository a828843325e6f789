"""The weight files of a model and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from edgeleaf.errors import ModelError
from edgeleaf.files import sha256
from edgeleaf.records import RecordError, inside, parse_json, read_bytes, read_json


def weights_sha256(folder: Path) -> str:
    """Return the sha256 of a model's weights, as 64 hex digits.

    For one weight file (model.safetensors, else pytorch_model.bin) this is its own hash. For several (shards, or a
    Dense module beside the transformer) it is the hash of the lines ``<relative name> <sha256>``, sorted by name.

    Args:
        folder: a model in sentence-transformers' or transformers' layout.

    Raises:
        ModelError: there are no weights, or a shard is missing.

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
    """Return the weight files of a model's root and of its modules, including all shards of an index."""
    try:
        return list(_listed_weights(folder))
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = error if isinstance(error, RecordError) else repr(error)
        raise ModelError(f"{folder} is damaged: modules.json or a weight index cannot be read ({reason})") from error


def _listed_weights(folder: Path) -> Iterator[Path]:
    modules = {""}
    if (folder / "modules.json").is_file():
        modules |= {_place(folder, module["path"]) for module in read_json(folder / "modules.json")}
    places = {folder} | {folder / module for module in modules}
    places |= {sub for module in modules - {""} for sub in (folder / module).rglob("*") if sub.is_dir()}
    for place in sorted(places):
        for single in ("model.safetensors", "pytorch_model.bin"):
            index = place / f"{single}.index.json"
            if index.is_file():
                shards = set(read_json(index)["weight_map"].values())
                missing = sorted(shard for shard in shards if not inside(place, shard).is_file())
                if missing:
                    raise ModelError(f"{place} lacks {missing[0]!r}, which {index.name} names: fetch the model again")
                yield from (place / shard for shard in sorted(shards))
            elif (place / single).is_file():
                yield place / single
            else:
                continue
            break


def _place(folder: Path, place: object) -> str:
    """Return a module's folder, which must be inside the model."""
    if place != "":
        inside(folder, str(place))
    return str(place)


MOST_TOKENIZER_BYTES = 256 << 20
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "vocab.json")


def tokenizer_sha256(folder: Path) -> str | None:
    """Return the sha256 of a model's tokenizer; None if the folder has none of the known files.

    For a tokenizer.json this is the hash of its content in canonical JSON without padding and truncation, which do not
    change a token. For another file it is the hash of the file.

    Raises:
        ModelError: tokenizer.json is damaged.
    """
    for name in _TOKENIZER_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".json" or name == "vocab.json":
            return sha256(path)
        try:
            settings = parse_json(read_bytes(path, most_bytes=MOST_TOKENIZER_BYTES))
            said = {key: value for key, value in settings.items() if key not in ("padding", "truncation")}
        except (RecordError, AttributeError) as error:
            raise ModelError(f"{path}: damaged ({error}); fetch or copy the model again") from None
        text = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
    return None
