"""A teacher is a black box behind one protocol: texts in, unit vectors of one space out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.recipe.sources import Kind


class Teacher(Protocol):
    """Anything that turns texts into vectors of one space, cutting them off at ``max_length`` tokens."""

    space: VectorSpace
    max_length: int
    precision: str
    """Empty for the teacher's own vectors; else what they are close to it by, and a cache of their own."""
    batch_size: int
    """How many texts it wants at a time."""

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Return float32 [len(texts), dim], unit L2 norm, the prompt of ``kind`` applied, order kept."""
        ...
