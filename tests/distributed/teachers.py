"""Teachers that a worker of Ray opens in a process of its own, and that write down what they do."""

from __future__ import annotations

import os
import time
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.recipe.sources import Kind

SPACE = VectorSpace("numbers", None, "0" * 64, "none", True, "", "", 8)


@dataclass(frozen=True)
class Opener:
    """Opens a :class:`Counting` teacher on a worker.

    Args:
        diary: a folder that gets a file per call of ``encode``, with the texts.
        deadly: a text at which the worker dies, the first time that it sees it.
        always: whether it dies each time.
        halt: after how many calls, of all workers together, they say nothing more until they are ended; 0 for never.
        weights: what the teacher's weights hash to.
    """

    diary: Path
    deadly: str = ""
    always: bool = False
    halt: int = 0
    weights: str = "0" * 64

    def __call__(self) -> Counting:
        return Counting(self)


class Counting:
    """A teacher whose vectors are pseudo-random, the same for the same text."""

    max_length, precision, batch_size = 16, "", 4

    def __init__(self, opener: Opener) -> None:
        self.space = VectorSpace("numbers", None, opener.weights, "none", True, "", "", 8)
        self._opener = opener

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        diary, deadly = self._opener.diary, self._opener.deadly
        if self._opener.halt and len(list(diary.iterdir())) >= self._opener.halt:
            time.sleep(3600)
        (diary / f"{time.time_ns()}-{os.getpid()}-{uuid.uuid4().hex}").write_text("\n".join(texts), encoding="utf-8")
        died = diary.with_name("died")
        if deadly and deadly in texts and (self._opener.always or not died.exists()):
            died.touch()
            os.kill(os.getpid(), 9)
        rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(8) for text in texts]
        vectors = np.array(rows, np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def workers(diary: Path) -> set[int]:
    """Return the processes that have called."""
    return {int(path.name.split("-")[1]) for path in diary.iterdir()}


def calls(diary: Path) -> list[list[str]]:
    """Return the texts of each call, in the order of time."""
    return [path.read_text(encoding="utf-8").split("\n") for path in sorted(diary.iterdir())]
