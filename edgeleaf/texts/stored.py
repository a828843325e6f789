"""A corpus on disk, one text per line, read when it is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import TextsError
from edgeleaf.recipe.sources import KINDS
from edgeleaf.texts.readers import json_row
from edgeleaf.texts.text import Text

_SCANNED = 1 << 24
"""Bytes that are searched for line ends at a time."""
_READ = 4096
"""Texts that are read at a time."""


class TextFile(Sequence[Text]):
    """The texts of a file that :func:`edgeleaf.texts.corpus.write_corpus` wrote; needs eight bytes of memory per text.

    Args:
        path: path of the file, with ``{"text": …, "kind": …}`` on every line.

    Raises:
        TextsError: no such file; and, when texts are read, an invalid line. The message names file and line.

    Example:
        >>> TextFile(Path("out.work/texts/train.jsonl"))[:2]  # doctest: +SKIP
        [Text(text='where is my parcel', kind='query'), Text(text='A parcel is a package.', kind='document')]
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._file = path.open("rb")
            self._starts = _line_starts(self._file)
        except FileNotFoundError:
            raise TextsError(f"{path}: no such file") from None
        except OSError as error:
            raise TextsError(f"{path}: cannot read it: {error.strerror or error}") from error

    def __reduce__(self) -> tuple[type[TextFile], tuple[Path]]:
        return TextFile, (self._path,)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Text.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # like a list

    def __iter__(self) -> Iterator[Text]:
        for first in range(0, len(self), _READ):
            yield from self._read(first, min(first + _READ, len(self)))

    @overload
    def __getitem__(self, row: int) -> Text: ...
    @overload
    def __getitem__(self, row: slice) -> list[Text]: ...
    def __getitem__(self, row: int | slice) -> Text | list[Text]:
        if isinstance(row, slice):
            first, last, step = row.indices(len(self))
            return self._read(first, max(first, last)) if step == 1 else [self[i] for i in range(first, last, step)]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self._read(row % len(self), row % len(self) + 1)[0]

    def _read(self, first: int, last: int) -> list[Text]:
        start, end = int(self._starts[first]), int(self._starts[last])
        with self._lock:
            self._file.seek(start)
            data = self._file.read(end - start)
        bounds = (self._starts[first : last + 1] - start).tolist()
        spans = enumerate(pairwise(bounds), first + 1)
        return [self._text(data[low:high], number) for number, (low, high) in spans]

    def _text(self, line: bytes, number: int) -> Text:
        try:
            row = json_row(line.decode("utf-8-sig" if number == 1 else "utf-8"), self._path, number)
        except UnicodeDecodeError as error:
            raise TextsError(f"{self._path}, line {number}: not UTF-8 ({error.reason})") from error
        text, kind = row.get("text"), row.get("kind")
        if not isinstance(text, str) or kind not in KINDS:
            raise TextsError(f'{self._path}, line {number}: expected {{"text": …, "kind": "query" or "document"}}')
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise TextsError(f"{self._path}, line {number}: half a surrogate pair is not text") from None
        return Text(text, kind)


def _line_starts(file: Any) -> npt.NDArray[np.int64]:
    """Return where each line starts, and where the last one ends."""
    found = [np.zeros(1, np.int64)]
    size = 0
    while block := file.read(_SCANNED):
        found.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + size + 1)
        size += len(block)
    starts = np.concatenate(found)
    return starts if starts[-1] == size else np.append(starts, size)
