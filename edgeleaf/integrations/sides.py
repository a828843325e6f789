"""The two sides of a bundle for a framework: queries by the fused file, documents by the teacher.

Either is opened when it is first asked for, so that a program that only searches needs no torch and no teacher.
"""

from __future__ import annotations

import os
import reprlib
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.manifest import Manifest, VectorSpace
from edgeleaf.bundle.strings import exact_strings
from edgeleaf.errors import EdgeleafError, InputError, MissingExtra, ModelError
from edgeleaf.extras import missing_teacher
from edgeleaf.vectors import is_whole

if TYPE_CHECKING:
    from edgeleaf.teachers.base import Teacher


class Sides:
    """Encodes queries with a bundle's fused file, and documents with its teacher. Safe to share between threads.

    A pickle holds the folder's name and ``threads`` only; the other process opens the bundle again.

    Args:
        bundle: a bundle folder.
        threads: processor threads of the fused file.

    Raises:
        InputError: ``bundle`` is no path, or ``threads`` no whole number from 1. That the bundle is there and whole is
            seen when it is opened: :meth:`open`, or the first text.
    """

    def __init__(self, bundle: str | Path, *, threads: int = 1) -> None:
        if not isinstance(bundle, (str, os.PathLike)) or not str(bundle).strip():
            raise InputError(f"bundle is {reprlib.repr(bundle)}; the path of a bundle folder is needed")
        if not is_whole(threads) or threads < 1:
            raise InputError(f"threads is {reprlib.repr(threads)}; a whole number from 1 is needed")
        self.bundle, self.threads = str(bundle), int(threads)
        self._lock = threading.RLock()

    def open(self) -> Sides:
        """Open the fused file now instead of with the first query.

        Raises:
            BundleError: no such bundle, or a damaged one.
        """
        with self._lock:
            _ = self._encoder
        return self

    @property
    def space(self) -> VectorSpace:
        """The vector space of both sides."""
        return self.open()._encoder.space

    def queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode queries; float32 [n, dim], unit L2 norm. The query prompt is inside the file.

        Raises:
            BundleError: no such bundle, or a damaged one.
            InputError: what :meth:`edgeleaf.QueryEncoder.encode` refuses.
        """
        return self.open()._encoder.encode(texts)

    def documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode documents with the teacher and its document prompt; float32 [n, dim], unit L2 norm.

        The teacher reads as many tokens as ``edgeleaf index`` lets it; text beyond them is cut off.

        Raises:
            BundleError: no such bundle, or a damaged one.
            MissingExtra: packages of the teacher are not installed.
            ModelError: the teacher is not on this machine and cannot be fetched, or is not the one of the bundle.
            InputError: as for queries.
        """
        texts = exact_strings(texts)
        if not texts:
            return np.empty((0, self.space.dim), np.float32)
        with self._lock:
            teacher = self._teacher
            return teacher.encode(texts, kind="document")

    @cached_property
    def _encoder(self) -> QueryEncoder:
        return QueryEncoder.load(self.bundle, threads=self.threads)

    @cached_property
    def _teacher(self) -> Teacher:
        folder = Path(self.bundle)
        if folder.is_file():
            raise ModelError(
                f"documents are encoded by the teacher {self.space.teacher}, about which a fused file alone says too "
                "little; give the folder of its bundle"
            )
        manifest = Manifest.read(folder)
        name = manifest.space.teacher
        if lacking := missing_teacher():
            raise MissingExtra(
                f"documents are encoded by the teacher {name}, which needs {', '.join(lacking)}, not installed: "
                "pip install 'edgeleaf[distill]'; queries need only the bundle"
            )
        from edgeleaf.teachers.opening import teacher_of

        try:
            teacher = teacher_of(manifest)
            teacher.widened(at_least=manifest.teacher_max_length)
        except EdgeleafError as error:
            raise ModelError(
                f"documents are encoded by the teacher {name}, which cannot be opened: {error}; queries need only the "
                "bundle"
            ) from error
        return teacher

    def __reduce__(self) -> tuple[Any, ...]:
        return _sides, (str(Path(self.bundle).absolute()), self.threads)

    def __repr__(self) -> str:
        return f"Sides({self.bundle!r}, threads={self.threads})"


def _sides(bundle: str, threads: int) -> Sides:
    return Sides(bundle, threads=threads)
