"""Turns texts into teacher vectors, and caches the vectors in shards.

A cache folder belongs to one vector space and window. A shard is a pair of files, ``00012.npy`` (float16 [n, dim],
memory-mapped) and ``00012.keys.npy`` (16 bytes per text, a hash of prompt and text). The second is written last, so a
killed run loses only the shard that it was writing. A number belongs to the process that creates its first file.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import DriftError, ModelError
from edgeleaf.files import write_npy
from edgeleaf.recipe.sources import KINDS
from edgeleaf.teachers.base import Encodes, Watched
from edgeleaf.texts.text import Text

SHARD = 128
"""Lowest number of texts in a shard. A killed run loses this much, a quarter of a minute's work on two cores."""
KEYS_SUFFIX = ".keys.npy"
KEY: np.dtype[np.bytes_] = np.dtype("S16")
"""A key, compared as bytes."""
MEND = "delete it and its neighbour of the same number, then run again; only its texts are encoded again"

Keys = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class Part:
    """The work of one shard: texts that the teacher gets together, so that the same texts always give the same bits.

    Args:
        keys: their keys, in the same order.
        read: reads the texts.
    """

    keys: Keys
    read: Callable[[], list[Text]]


Engine = Callable[[Encodes, Sequence[Part], Callable[[int], None]], Iterator[tuple[Part, npt.NDArray[Any]]]]
"""Yields each part with its vectors, in any order, and tells how many characters are done; see :func:`in_turn`."""


def in_turn(
    teacher: Encodes, parts: Sequence[Part], advance: Callable[[int], None]
) -> Iterator[tuple[Part, npt.NDArray[Any]]]:
    """Encode one part after the other in this process."""
    for part in parts:
        yield part, encode_texts(teacher, part.read(), advance)


def teacher_vectors(
    texts: Sequence[Text],
    teacher: Encodes,
    cache: Path,
    *,
    file: Path | None = None,
    engine: Engine = in_turn,
    shard: int | None = None,
) -> npt.NDArray[np.float16]:
    """Return the teacher's vectors of ``texts``, from the cache if it has them.

    Args:
        texts: queries and documents; each gets the prompt of its kind. They are read once, and again if they must
            be encoded. Each needs some 60 bytes of memory, whatever its length.
        teacher: the teacher.
        cache: the folder of this teacher's shards; created if it does not exist.
        file: a .npy file to put the vectors in, which are then memory-mapped; None keeps them in memory.
        engine: what encodes; the vectors do not depend on it.
        shard: texts per shard; None means :data:`SHARD`, or as many as the teacher prefers per call.

    Returns:
        float16 [len(texts), dim], rows of unit L2 norm up to float16, in the order of ``texts``.

    Raises:
        ModelError: the teacher returned a vector that is not finite, or does not have the promised width and norm; or a
            file of the cache is damaged.
        DriftError: the teacher changed meanwhile; the vectors of this call are dropped.
    """
    folder = cache / cache_name(teacher)
    folder.mkdir(parents=True, exist_ok=True)
    keys, lengths, queries = _looked_at(texts, teacher.space)
    _, first = np.unique(keys, return_index=True)
    # Texts of similar length go together, which saves padding. The order does not depend on what is cached, so a
    # resumed run has the same batches.
    rows = first[np.lexsort((first, -lengths[first], queries[first]))]
    known = Shards(folder)
    missing = rows[~known.has(keys[rows])]
    if 0 < len(missing) < len(rows):
        progress.say(f"teacher vectors: resuming at {len(rows) - len(missing):,} of {len(rows):,} texts")
    # The longest texts come first, so counting texts would predict many times the remaining time.
    characters = int(lengths[missing].sum())
    size = shard or max(SHARD, teacher.batch_size)
    written: list[str] = []

    def part(start: int) -> Part:
        here = missing[start : start + size]
        return Part(keys[here], lambda: [texts[row] for row in here.tolist()])

    try:
        with ExitStack() as stack:
            if len(missing) and isinstance(teacher, Watched):
                stack.enter_context(teacher.watched(folder, texts=len(missing), characters=characters))
            advance = stack.enter_context(progress.bar("teacher vectors, characters", characters))
            parts = [part(start) for start in range(0, len(missing), size)]
            for done, vectors in engine(teacher, parts, advance):
                written.append(known.write(done.keys, vectors))
    except DriftError:
        known.drop(written)
        raise
    complete = Shards(folder) if len(missing) else known
    return complete.vectors(keys, dim=teacher.space.dim, file=file)


def _looked_at(texts: Sequence[Text], space: VectorSpace) -> tuple[Keys, npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Return the key of each text, its length in characters, and whether it is a query."""
    keys, lengths, queries = bytearray(), array("i"), array("b")
    for text in texts:
        keys += _key(text, space)
        lengths.append(len(text.text))
        queries.append(text.kind == "query")
    return (
        np.frombuffer(bytes(keys), KEY) if keys else np.empty(0, KEY),
        np.array(lengths, np.int32),
        np.array(queries, bool),
    )


def cache_name(teacher: Encodes) -> str:
    """Return the name of the folder of a teacher's shards: its space, window and precision."""
    parts = [teacher.space.id.replace("/", "-"), str(teacher.max_length), teacher.precision]
    return "-".join(filter(None, parts))


def encode_texts(
    teacher: Encodes, texts: list[Text], advance: Callable[[int], None] = lambda characters: None
) -> npt.NDArray[np.float32]:
    """Encode one shard, one batch of texts of one kind at a time.

    Returns:
        float32 [len(texts), teacher.space.dim], rows of unit L2 norm.

    Raises:
        ModelError: see :func:`teacher_vectors`.
    """
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


class Shards:
    """The shards of a folder: the position of each key's vector, with 24 bytes of memory per key.

    Args:
        folder: the folder of one vector space, window and precision.

    Raises:
        ModelError: a file that is not part of a shard.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = sorted(path.name.removesuffix(KEYS_SUFFIX) for path in folder.glob(f"*{KEYS_SUFFIX}"))
        shards = [self._keys(name) for name in names]
        self._names = names
        self._next = len(names)
        lengths = [len(shard) for shard in shards]
        keys = np.concatenate([np.empty(0, KEY), *shards])
        order = np.argsort(keys, kind="stable")
        self.keys: Keys = keys[order]
        """Sorted."""
        self._shards = np.repeat(np.arange(len(names), dtype=np.int32), lengths)[order]
        self._rows = np.concatenate([np.empty(0, np.int32), *(np.arange(n, dtype=np.int32) for n in lengths)])[order]

    def _keys(self, name: str) -> Keys:
        path = self._folder / f"{name}{KEYS_SUFFIX}"
        keys = _loaded(path)
        if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != KEY.itemsize:
            raise ModelError(f"{path}: damaged (no keys in it): {MEND}")
        return np.ascontiguousarray(keys).view(KEY).ravel()

    def has(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Return which of the keys have a vector here."""
        if not len(self.keys):
            return np.zeros(len(keys), bool)
        return np.asarray(self.keys[self._at(keys)] == keys)

    def _at(self, keys: Keys) -> npt.NDArray[np.int64]:
        return np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)

    def drop(self, names: Sequence[str]) -> None:
        """Delete shards."""
        for name in names:
            for suffix in (KEYS_SUFFIX, ".npy"):  # without its keys, a shard is not found any longer
                (self._folder / f"{name}{suffix}").unlink(missing_ok=True)

    def write(self, keys: Keys, vectors: npt.NDArray[Any]) -> str:
        """Write another shard under a number that no other process has, and return it.

        It is found when the folder is read again.
        """
        while True:
            name = f"{self._next:05d}"
            self._next += 1
            try:
                with (self._folder / f"{name}.npy").open("xb"):  # the number is ours; the file is empty until complete
                    break
            except FileExistsError:
                continue
        write_npy(self._folder / f"{name}.npy", vectors.astype(np.float16))
        write_npy(self._folder / f"{name}{KEYS_SUFFIX}", keys.view(np.uint8).reshape(-1, KEY.itemsize))
        return name

    def vectors(self, keys: Keys, *, dim: int, file: Path | None = None) -> npt.NDArray[np.float16]:
        """Return float16 [len(keys), dim], read one shard at a time; memory-mapped if a file is given.

        Raises:
            ModelError: a shard is damaged.
        """
        shape = (len(keys), dim)
        temporary = None if file is None else file.with_name(f".{file.name}.{os.getpid()}.tmp")
        found: npt.NDArray[np.float16] = (
            np.empty(shape, np.float16)
            if temporary is None or not len(keys)
            else np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        )
        if len(keys):
            at = self._at(keys)
            numbers, rows = self._shards[at], self._rows[at]
            order = np.argsort(numbers, kind="stable")
            for here in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
                path = self._folder / f"{self._names[numbers[here[0]]]}.npy"
                shard = _loaded(path)
                if shard.ndim != 2 or shard.shape[1] != dim or len(shard) <= rows[here].max():
                    raise ModelError(f"{path}: damaged (shape {shard.shape}): {MEND}")
                found[here] = shard[rows[here]]
        if file is None:
            return found
        if temporary is None or not len(keys):
            write_npy(file, found)
            return found
        found.flush()  # type: ignore[attr-defined]
        del found
        temporary.replace(file)
        mapped: npt.NDArray[np.float16] = np.load(file, mmap_mode="r")
        return mapped


def _loaded(path: Path) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: damaged ({' '.join(str(error).split())[:100]}): {MEND}") from None
    return found
