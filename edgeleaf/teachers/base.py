"""The protocol of teachers: texts go in, unit vectors of one space come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.recipe.sources import Kind


class Teacher(Protocol):
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
