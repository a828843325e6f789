"""The protocol of teachers: texts go in, unit vectors of one space come out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.recipe.sources import Kind

if TYPE_CHECKING:
    from edgeleaf.teachers.window import Window


@dataclass(frozen=True)
class Rendered:
    """What a teacher reads for one text.

    Args:
        text: the text with all that is put around it, cut at the window.
        tokens: its tokens as the tokenizer writes them, first and last ones included; None if they are made elsewhere.
        ids: their ids.
    """

    text: str
    tokens: tuple[str, ...] | None = None
    ids: tuple[int, ...] | None = None


class Encodes(Protocol):
    """Anything that turns texts into vectors of one space and cuts texts off at ``max_length`` tokens."""

    space: VectorSpace
    max_length: int
    precision: str
    """Empty for the teacher's own vectors; otherwise the name of an approximation, which has its own cache."""
    batch_size: int
    """How many texts it prefers per call."""

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Apply the prompt of ``kind``; return float32 [len(texts), dim], unit L2 norm, in the order of ``texts``."""
        ...


class Teacher(Encodes, Protocol):
    """A teacher of any kind, which also says what it reads."""

    device: str

    @property
    def folder(self) -> Path | None:
        """The folder of a sentence-transformers model, whose latency can be measured beside a student's; else None."""
        ...

    def rendered(self, text: str, *, kind: Kind) -> Rendered:
        """Return what the teacher reads for a text."""
        ...

    def lengths(self, texts: Sequence[str], *, kind: Kind) -> list[int] | None:
        """Return the tokens of each text as the window counts them; None if they are counted elsewhere."""
        ...

    def widened(self, *, at_least: int) -> Window | None:
        """Read as many tokens of each text as the model's own files name, from now on; return that window.

        None for a teacher whose tokens are counted elsewhere, whose window stays.
        """
        ...


@runtime_checkable
class Watched(Protocol):
    """A teacher that must be watched while it encodes, because somebody else may change it, or charges for it."""

    def watched(self, folder: Path, *, texts: int, characters: int) -> AbstractContextManager[None]:
        """Return a context for encoding so many texts into a folder of the cache.

        Raises:
            DriftError: at either end of the context, if the teacher has changed.
        """
        ...
