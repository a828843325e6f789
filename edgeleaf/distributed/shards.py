"""Shards of teacher vectors at a place that several machines reach: a folder that they share, or a URL.

A shard is named after its texts, so the same texts always find the same shard. Its files: ``NAME.texts.jsonl`` (what to
encode), ``NAME.tried`` (how often; both are removed in the end), ``NAME.npy`` (float16 [rows, dim]) and the sidecar
``NAME.json``, written last, which says what made it and holds the sha256 of the vectors. Each file is written aside and
renamed, so a shard with a sidecar is whole; a worker, driver or disk that fails costs the shards that were being
encoded, and no other.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import PlaceError
from edgeleaf.files import json_text
from edgeleaf.records import RecordError, parse_json, record, shown
from edgeleaf.remote import Place
from edgeleaf.teachers.base import Encodes
from edgeleaf.teachers.cache import Keys
from edgeleaf.texts.text import Text

SCHEMA_VERSION = 1
TEXTS, VECTORS, SIDECAR, TRIED = ".texts.jsonl", ".npy", ".json", ".tried"


@dataclass(frozen=True)
class Sidecar:
    """What a shard holds and what made it.

    Args:
        space: the teacher's vector space, with the hash of its weights.
        max_length: its window in tokens.
        precision: see :class:`edgeleaf.teachers.base.Teacher`.
        rows: number of vectors.
        texts_sha256: hash of the texts that were encoded.
        sha256: hash of the file of vectors.
        schema_version: of this file.
    """

    space: VectorSpace
    max_length: int
    precision: str
    rows: int
    texts_sha256: str
    sha256: str
    schema_version: int = SCHEMA_VERSION


def shard_name(keys: Keys) -> str:
    """Return the name of a shard: a hash of its texts' keys, in their order."""
    return hashlib.blake2b(keys.tobytes(), digest_size=12).hexdigest()


def texts_of(data: bytes) -> list[Text]:
    """Return the texts of a shard; see :func:`texts_file`."""
    rows = (json.loads(line) for line in data.decode().splitlines())
    return [Text(row["text"], row["kind"]) for row in rows]


def texts_file(texts: Sequence[Text]) -> bytes:
    """Return texts as JSON lines in ASCII, in which no character of a text can look like the end of a line."""
    return "".join(json.dumps(asdict(text)) + "\n" for text in texts).encode()


def npy_bytes(vectors: npt.NDArray[Any]) -> bytes:
    """Return vectors as a .npy file, float16."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(vectors, dtype="<f2"), allow_pickle=False)
    return stream.getvalue()


def write_shard(place: Place, name: str, vectors: npt.NDArray[Any], teacher: Encodes, texts_sha256: str) -> None:
    """Write a shard's vectors, and then its sidecar."""
    data = npy_bytes(vectors)
    sidecar = Sidecar(
        space=teacher.space,
        max_length=teacher.max_length,
        precision=teacher.precision,
        rows=len(vectors),
        texts_sha256=texts_sha256,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    place.write(name + VECTORS, data)
    place.write(name + SIDECAR, json_text(asdict(sidecar)).encode())


def check_sidecar(place: Place, name: str, teacher: Encodes, rows: int) -> Sidecar:
    """Return the sidecar of a shard if this teacher made it from this many texts.

    Raises:
        PlaceError: it cannot be read, or does not match; the message says in what.
    """
    file = f"{place.shown}/{name}{SIDECAR}"
    try:
        found = record(Sidecar, parse_json(place.read(name + SIDECAR)))
    except RecordError as error:
        raise PlaceError(f"{file}: damaged ({error}); {_mend(file)}") from None
    came = _identity(found.space, found.max_length, found.precision, found.rows, found.schema_version)
    needed = _identity(teacher.space, teacher.max_length, teacher.precision, rows, SCHEMA_VERSION)
    if different := [key for key in needed if came.get(key) != needed[key]]:
        key = different[0]
        raise PlaceError(
            f"{file} does not match: {key} is {shown(came.get(key))}, needed is {shown(needed[key])}; {_mend(file)}"
        )
    return found


def read_shard(place: Place, name: str, teacher: Encodes, rows: int) -> npt.NDArray[np.float16]:
    """Return the vectors of a shard, float16 [rows, dim], after comparing them with its sidecar.

    Raises:
        PlaceError: a file is missing or does not match.
    """
    sidecar, file = check_sidecar(place, name, teacher, rows), f"{place.shown}/{name}{VECTORS}"
    data = place.read(name + VECTORS)
    if (came := hashlib.sha256(data).hexdigest()) != sidecar.sha256:
        beside = f"{place.shown}/{name}{SIDECAR}"
        raise PlaceError(
            f"{file} does not match its sidecar: sha256 {came[:12]}…, needed is {sidecar.sha256[:12]}…; {_mend(beside)}"
        )
    try:
        vectors = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise PlaceError(f"{file} is not a file of vectors; {_mend(file)}") from None
    if vectors.shape != (rows, teacher.space.dim) or vectors.dtype != np.float16:
        raise PlaceError(f"{file} holds {vectors.dtype} {vectors.shape}; float16 {(rows, teacher.space.dim)} is needed")
    return np.asarray(vectors, dtype=np.float16)


def remove_shards(place: Place, names: Sequence[str], *, keep: bool) -> None:
    """Remove shards, their sidecars first, and an empty folder; or only their texts, if the shards are to be kept."""
    for name in names:
        for suffix in (TEXTS, TRIED) if keep else (SIDECAR, VECTORS, TEXTS, TRIED):
            place.remove(name + suffix)
    place.prune()


def _identity(space: VectorSpace, max_length: int, precision: str, rows: int, version: int) -> dict[str, Any]:
    return {
        "schema_version": version,
        **space.identity(),
        "max_length": max_length,
        "precision": precision,
        "rows": rows,
    }


def _mend(file: str) -> str:
    return f"remove {file} and run again; only this shard is encoded again"
