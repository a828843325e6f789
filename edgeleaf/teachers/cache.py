"""Texts to teacher vectors. A teacher is a black box behind one protocol; its vectors are cached in shards.

A cache folder belongs to one vector space and window. A shard is a pair of files, ``00012.npy`` (float16 [n, dim],
memory-mapped) and ``00012.keys.npy`` (16 bytes a text, hash of prompt and text); the second is written last, so a
killed run loses the shard it was in and no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import ModelError
from edgeleaf.files import write_npy
from edgeleaf.recipe.sources import KINDS
from edgeleaf.teachers.base import Teacher
from edgeleaf.texts.text import Text

SHARD = 128
"""Texts in a shard, at least: what a killed run loses, a quarter of a minute's work on two cores."""


def teacher_vectors(texts: Sequence[Text], teacher: Teacher, cache: Path) -> npt.NDArray[np.float16]:
    """Return the teacher's vectors of ``texts``, from the cache where it has them.

    Args:
        texts: queries and documents; each gets the prompt of its kind.
        teacher: the black box.
        cache: a folder that this teacher's shards live in; made when it is not there.

    Returns:
        float16 [len(texts), dim], rows of unit L2 norm up to float16, in the order of ``texts``.

    Raises:
        ModelError: the teacher returned a vector that is not finite, or not of the width and norm it promises.
    """
    parts = [teacher.space.id.replace("/", "-"), str(teacher.max_length), teacher.precision]
    folder = cache / "-".join(filter(None, parts))
    folder.mkdir(parents=True, exist_ok=True)
    keys = [_key(text, teacher.space) for text in texts]
    known = _known(folder)
    distinct = dict(zip(keys, texts, strict=True)).items()
    # Like lengths together: less padding. The order does not depend on what is known, so a resumed run's batches are
    # those that it would have had.
    by_length = sorted(distinct, key=lambda item: (item[1].kind, -len(item[1].text)))
    missing = [(key, text) for key, text in by_length if key not in known]
    total = len(distinct)
    if 0 < len(missing) < total:
        progress.say(f"teacher vectors: resuming at {total - len(missing):,} of {total:,} texts")
    # The longest texts come first: counted in texts, the time left would be many times too long.
    characters = sum(len(text.text) for _, text in missing)
    with progress.bar("teacher vectors, characters", characters) as advance:
        shard = max(SHARD, teacher.batch_size)
        for start in range(0, len(missing), shard):
            part = missing[start : start + shard]
            _write_shard(folder, [key for key, _ in part], _encode(teacher, [text for _, text in part], advance))
    known = _known(folder)
    return _gather(folder, [known[key] for key in keys], teacher.space.dim)


def _encode(teacher: Teacher, texts: list[Text], advance: Callable[[int], None]) -> npt.NDArray[np.float32]:
    """Encode one shard, a batch of texts of one kind at a time."""
    vectors = np.zeros((len(texts), teacher.space.dim), dtype=np.float32)
    for kind in KINDS:
        of_kind = [i for i, text in enumerate(texts) if text.kind == kind]
        for start in range(0, len(of_kind), teacher.batch_size):
            rows = of_kind[start : start + teacher.batch_size]
            encoded = teacher.encode([texts[row].text for row in rows], kind=kind)
            if encoded.shape != (len(rows), teacher.space.dim):
                raise ModelError(
                    f"the teacher returned {encoded.shape} for {len(rows)} texts; "
                    f"{teacher.space.dim} numbers each are needed"
                )
            vectors[rows] = encoded
            advance(sum(len(texts[row].text) for row in rows))
    norms = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-2))
    if len(wrong):
        raise ModelError(
            f"the teacher's vector of {texts[wrong[0]].text[:60]!r} has norm {norms[wrong[0]]:.4g}; "
            "unit vectors are needed: let the teacher normalise"
        )
    return vectors


def _key(text: Text, space: VectorSpace) -> bytes:
    prompt = space.query_prompt if text.kind == "query" else space.document_prompt
    return hashlib.blake2b((prompt + text.text).encode(), digest_size=16).digest()


def _write_shard(folder: Path, keys: list[bytes], vectors: npt.NDArray[np.float32]) -> None:
    number = len(list(folder.glob("*.keys.npy")))
    write_npy(folder / f"{number:05d}.npy", vectors.astype(np.float16))
    write_npy(folder / f"{number:05d}.keys.npy", np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16))


def _known(folder: Path) -> dict[bytes, tuple[int, int]]:
    """Map a text's key to its shard and row."""
    places = {}
    for path in sorted(folder.glob("*.keys.npy")):
        number = int(path.name.split(".")[0])
        for row, key in enumerate(np.load(path)):
            places[key.tobytes()] = (number, row)
    return places


def _gather(folder: Path, places: list[tuple[int, int]], dim: int) -> npt.NDArray[np.float16]:
    """Read vectors by (shard, row), a shard at a time."""
    vectors = np.empty((len(places), dim), dtype=np.float16)
    numbers, rows = np.array(places, dtype=np.int64).reshape(-1, 2).T
    order = np.argsort(numbers, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if here.size:
            shard = np.load(folder / f"{numbers[here[0]]:05d}.npy", mmap_mode="r")
            vectors[here] = shard[rows[here]]
    return vectors
