"""QueryEncoder: the runtime. A string goes in, a unit vector in the teacher's space comes out.

Needs only numpy and onnxruntime.
"""

from __future__ import annotations

import os
import reprlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.feed import TYPES, feed_of, input_of
from edgeleaf.bundle.long_texts import LongTexts
from edgeleaf.bundle.machine import processor_kind
from edgeleaf.bundle.manifest import MANIFEST, QUERY_ENCODER, SCHEMA_VERSION, Manifest, VectorSpace
from edgeleaf.bundle.named import find
from edgeleaf.bundle.session import (
    MASK,
    METADATA_SCHEMA,
    METADATA_SPACE,
    METADATA_WINDOW,
    ROW_LENGTH,
    session,
)
from edgeleaf.bundle.strings import exact_strings
from edgeleaf.errors import BundleError, InputError, ProcessorWarning
from edgeleaf.records import RecordError, shown
from edgeleaf.vectors import is_whole, truncate

EMBEDDING = "embedding"
ENCODE_BATCH = 32
BATCH_CHARACTERS = 65_536
"""Greatest number of characters in a batch, padding included, unless one text alone exceeds it."""
PADDING = 16
"""Greatest difference in characters within a batch: more padding costs more time than the batch saves."""
LEAST_MODEL_BYTES = 4096
"""Fewer bytes cannot be a fused file; they may be an encoded path."""


@dataclass(frozen=True)
class Counted:
    """What :meth:`QueryEncoder.encode_counted` returns.

    Attributes:
        vectors: float32 [n, dim], as :meth:`QueryEncoder.encode` returns them.
        tokens: how many tokens of each text the encoder has read, special tokens and prompt included; int64 [n].
        cut: whether a text is longer than the encoder's window, so that its end was not read; bool [n].
    """

    vectors: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int64]
    cut: npt.NDArray[np.bool_]


class QueryEncoder:
    """Encodes queries with a fused ``query_encoder.onnx``. Safe to share between threads.

    Use :meth:`load` to make one; it calls the constructor with what it has read.

    Example:
        >>> encoder = QueryEncoder.load("out/demo")
        >>> encoder.encode(["where is my parcel?"]).shape
        (1, 768)
    """

    def __init__(self, opened: Any, *, space: VectorSpace, dims: int | None = None) -> None:
        self._session = opened
        self._counts: _Counts | None = None
        self._feed = feed_of(opened)
        self.input = input_of(opened)
        self._long_texts = LongTexts.read(opened.get_modelmeta().custom_metadata_map)
        self._loaded_by: tuple[Any, ...] | None = None
        self.space = space
        self.dim = dims or space.dim

    @staticmethod
    def load(
        path: str | Path | bytes,
        *,
        threads: int = 1,
        providers: Sequence[str] | None = None,
        dims: int | None = None,
        counts: bool = False,
        revision: str | None = None,
    ) -> QueryEncoder:
        """Load a bundle folder, a fused .onnx file, an installed bundle, or one on the Hugging Face hub.

        Args:
            path: a bundle folder, or a ``query_encoder.onnx``, whose hash is checked if a manifest lies beside it. A
                string that is no path may name a bundle that pip installed, or ``owner/name`` on the hub, which is
                fetched once; paths come first, the hub last. Or the bytes of a fused file, whose hash the caller has to
                check.
            threads: processor threads that one call may use.
            providers: ONNX Runtime execution providers, first choice first; ``None`` means the processor.
            dims: cut vectors to their first ``dims`` numbers and normalise again (Matryoshka); ``None`` keeps all.
            counts: make :meth:`encode_counted` possible, which also counts tokens.
            revision: branch, tag or commit of a bundle on the hub; ``None`` means the main branch.

        Raises:
            BundleError: no such path or name, not a bundle, a damaged file, another schema version, a file that is not
                a fused encoder, or invalid ``dims``, ``threads`` or ``providers``.
            MissingExtra: the name can only be one on the hub, and huggingface_hub is not installed.
        """
        is_model = isinstance(path, (bytes, bytearray, memoryview)) and len(path) >= LEAST_MODEL_BYTES
        if not is_model and not isinstance(path, (str, os.PathLike)):
            raise BundleError(f"path is {reprlib.repr(path)}; a bundle folder or a fused .onnx file is needed")
        if not is_whole(threads) or threads < 1:
            raise BundleError(f"threads is {reprlib.repr(threads)}; a whole number from 1 is needed")
        if revision is not None and not (isinstance(path, str) and isinstance(revision, str)):
            raise BundleError(f"revision is {reprlib.repr(revision)}; only a name on the hub has one, a string")
        if isinstance(path, (bytes, bytearray, memoryview)):  # is_model is true, or the path was refused above
            return QueryEncoder._of(bytes(path), threads=threads, providers=providers, dims=dims, counts=counts)
        if not str(path) or "\0" in str(path):
            what = "a path has no null character" if str(path) else "a bundle folder or a fused .onnx file is needed"
            raise BundleError(f"path is {shown(str(path))}; {what}")
        try:
            Path(path).exists()
        except OSError as error:  # a name that is too long, a folder that may not be read
            raise BundleError(f"{shown(str(path))}: cannot be opened: {error.strerror or error}") from None
        path = find(path, revision=revision) if isinstance(path, str) else Path(path)
        if path.is_dir():
            manifest = Manifest.read(path)
            manifest.verify(path, QUERY_ENCODER)
            _warn_once(path, manifest)
            path = path / QUERY_ENCODER
        elif not path.is_file():
            raise BundleError(f"{path}: no such file or folder; give a bundle folder or a fused .onnx file")
        elif path.name == MANIFEST:
            raise BundleError(f"{path} is a manifest; give the folder that holds it: {path.parent}")
        elif (path.parent / MANIFEST).is_file():
            manifest = Manifest.read(path.parent)
            if path.name in manifest.files:
                manifest.verify(path.parent, path.name)
                _warn_once(path.parent, manifest)
        return QueryEncoder._of(path, threads=threads, providers=providers, dims=dims, counts=counts)

    @staticmethod
    def _of(
        model: Path | bytes, *, threads: int, providers: Sequence[str] | None, dims: int | None, counts: bool
    ) -> QueryEncoder:
        opened = session(model, threads=int(threads), providers=providers)
        name = model if isinstance(model, Path) else "the model"
        space = _space(opened, name)
        if dims is not None and (not is_whole(dims) or not 1 <= dims <= space.dim):
            raise BundleError(f"dims is {reprlib.repr(dims)}; {name} gives 1 to {space.dim}, a whole number")
        if counts:
            opened = _counting(model, threads=int(threads), providers=providers)
        encoder = QueryEncoder(opened, space=space, dims=None if dims is None else int(dims))
        if counts:
            encoder._counts = _Counts.of(opened)
        source = model.absolute() if isinstance(model, Path) else model
        encoder._loaded_by = (source, int(threads), None if providers is None else list(providers), dims, counts)
        return encoder

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only what the encoder was loaded from; the other process loads it again."""
        if self._loaded_by is None:
            raise InputError("this QueryEncoder was not made by load, and cannot be pickled: load it in each process")
        return _load_again, self._loaded_by

    @property
    def folder(self) -> Path | None:
        """The folder of the file that it was loaded from, however it was named; None if it was loaded from bytes."""
        source = None if self._loaded_by is None else self._loaded_by[0]
        return source.parent if isinstance(source, Path) else None

    @property
    def window(self) -> int:
        """How many tokens the encoder reads of a text, special tokens and prompt included."""
        return int(self._session.get_modelmeta().custom_metadata_map[METADATA_WINDOW])

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode texts.

        Args:
            texts: a list of strings, or a column of them (:func:`edgeleaf.bundle.strings.exact_strings`).
                Text beyond the encoder's window is cut off. The query prompt is inside the file: do not add it.

        Returns:
            float32 [len(texts), dim], rows of unit L2 norm, in the order of ``texts``; [0, dim] for an empty list.

        Raises:
            InputError: a single string, bytes, or an element that is not a valid string.
        """
        vectors = np.empty((len(texts := self._checked(texts)), self.space.dim), dtype=np.float32)
        for rows, (part,) in self._run(texts):
            vectors[rows] = part
        return truncate(vectors, self.dim)

    def encode_counted(self, texts: Sequence[str]) -> Counted:
        """Encode texts, and say how many tokens each has and whether it is longer than the encoder's window.

        Args:
            texts: as for :meth:`encode`.

        Raises:
            InputError: as :meth:`encode`, or the encoder was loaded without ``counts``.
        """
        if self._counts is None:
            raise InputError("this QueryEncoder does not count tokens; load it with counts=True")
        texts = self._checked(texts)
        found = Counted(
            np.empty((len(texts), self.space.dim), np.float32),
            np.empty(len(texts), np.int64),
            np.empty(len(texts), bool),
        )
        for rows, (part, *tensors) in self._run(texts, self._counts.tensors):
            found.vectors[rows] = part
            found.tokens[rows], found.cut[rows] = self._counts.read(tensors)
        return Counted(truncate(found.vectors, self.dim), found.tokens, found.cut)

    def _run(self, texts: Sequence[str], tensors: Sequence[str] = ()) -> Iterator[tuple[list[int], list[Any]]]:
        """Yield batches: positions of texts, and what the file gives for them, vectors first."""
        for rows in batches([len(text) for text in texts]):
            yield rows, self._session.run([EMBEDDING, *tensors], self._feed([texts[row] for row in rows]))

    def _checked(self, texts: Sequence[str]) -> list[str]:
        """Return texts as they go to the file: exact strings, long ones shortened."""
        checked = exact_strings(texts)
        return checked if self._long_texts is None else [self._long_texts.shortened(text) for text in checked]

    def __repr__(self) -> str:
        return f"QueryEncoder(space={self.space.id!r}, dim={self.dim})"


def _load_again(
    model: Path | bytes, threads: int, providers: Sequence[str] | None, dims: int | None, counts: bool
) -> QueryEncoder:
    return QueryEncoder.load(model, threads=threads, providers=providers, dims=dims, counts=counts)


def _counting(model: Path | bytes, *, threads: int, providers: Sequence[str] | None) -> Any:
    """Open a fused file so that it also gives out what its tokens are counted by."""
    data = model.read_bytes() if isinstance(model, Path) else model
    also = (MASK, ROW_LENGTH) if ROW_LENGTH.encode() in data else (MASK,)
    return session(data, threads=threads, providers=providers, also=also)


@dataclass(frozen=True)
class _Counts:
    """How tokens are counted: the tensors to ask for, the template's last tokens, and the window."""

    tensors: tuple[str, ...]
    suffix: int
    window: int

    @staticmethod
    def of(opened: Any) -> _Counts:
        tensors = tuple(output.name for output in opened.get_outputs()[1:])
        window = int(opened.get_modelmeta().custom_metadata_map[METADATA_WINDOW])
        mask, *length = opened.run(list(tensors), feed_of(opened)([""]))
        return _Counts(tensors, int(mask.sum()) - int(length[0][0, 0] - 1) if length else 0, window)

    def read(self, tensors: Sequence[Any]) -> tuple[Any, Any]:
        """Return the tokens of each text, and whether it is longer than the window."""
        mask, *length = tensors
        tokens = mask.sum(axis=1)
        if not length:  # a file of edgeleaf 0.1: a text that fills the window counts as longer
            return tokens, tokens == self.window
        return tokens, length[0][:, 0] - 1 + self.suffix > self.window


_warned: set[str] = set()


def _warn_once(bundle: Path, manifest: Manifest) -> None:
    """Warn, once per process, if the bundle was not certified on this kind of processor."""
    kind = processor_kind()
    if manifest.processors and kind not in manifest.processors and kind not in _warned:
        _warned.add(kind)
        warnings.warn(
            f"{bundle} is certified on {', '.join(sorted(manifest.processors))}, this is {kind}; "
            f"to see what it does here: edgeleaf check {bundle}",
            ProcessorWarning,
            stacklevel=3,
        )


def alike(shortest: int, longest: int) -> bool:
    """Return whether texts of these numbers of characters share a batch without much padding."""
    return longest - shortest <= PADDING


def batches(
    lengths: Sequence[int], most: int = ENCODE_BATCH, characters: int = BATCH_CHARACTERS
) -> Iterator[list[int]]:
    """Yield batches of positions of texts of similar length, to save padding; other texts do not change a vector.

    Args:
        lengths: characters of each text.
        most: texts in one batch.
        characters: characters in one batch of several texts, with padding.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = len(batch) == most or (len(batch) + 1) * lengths[place] > characters
        if batch and (full or not alike(lengths[batch[0]], lengths[place])):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _space(opened: Any, path: Path | str) -> VectorSpace:
    ends = [[(end.name, end.type) for end in side] for side in (opened.get_inputs(), opened.get_outputs())]
    metadata = opened.get_modelmeta().custom_metadata_map
    fused = [[[taken], [(EMBEDDING, "tensor(float)")]] for taken in TYPES.items()]
    if ends not in fused or METADATA_SPACE not in metadata:
        found = ", ".join(f"{name}: {kind}" for name, kind in ends[0])
        known = " or ".join(f"{name}: {kind}" for name, kind in TYPES.items())
        raise BundleError(
            f"{path} is not a fused query encoder: it takes {found}; one that takes {known} is needed, "
            "as edgeleaf run or edgeleaf export writes it"
        )
    if metadata.get(METADATA_SCHEMA) != str(SCHEMA_VERSION):
        raise BundleError(
            f"{path}: schema version {metadata.get(METADATA_SCHEMA)}, this edgeleaf reads {SCHEMA_VERSION}; "
            "install the edgeleaf that wrote it or build it again"
        )
    try:
        return VectorSpace.read(metadata[METADATA_SPACE])
    except RecordError as error:
        raise BundleError(f"{path}: its vector space cannot be read ({error}); build or copy it again") from None
