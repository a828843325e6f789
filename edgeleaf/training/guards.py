"""Reports at once what ruins a distillation: divergence, a dead student, cut texts, training on held-out texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.errors import TextsError, TrainingError
from edgeleaf.texts.text import same

FIRST_STEPS, MEMORY = 50, 0.95
"""The loss is compared with its mean over the first steps; it is averaged over some twenty."""
DIVERGED = 1.6
"""A loss of this multiple of the first does not recover; one that did rose by a fifth (docs/log/training.md)."""
ALIKE, NOT_ALIKE = 0.999, 0.95
"""Mean cosine between texts of a dead student, and the highest one of a teacher with which that counts as an error."""
CUT_SAMPLE = 4096
CUT_SHARE = 0.01


class LossWatch:
    """Checks the loss of every step."""

    def __init__(self) -> None:
        self._steps = 0
        self._first = self._average = 0.0

    def see(self, loss: float) -> None:
        """Take the loss of the next step.

        Raises:
            TrainingError: it is not a number, or has grown since the start by more than training recovers from.
        """
        if not math.isfinite(loss):
            raise TrainingError(
                "the loss is no longer a number; lower objective.learning_rate or raise student.ridge, then run again"
            )
        self._steps += 1
        if self._steps <= FIRST_STEPS:
            self._first += (loss - self._first) / self._steps
            self._average = self._first
            return
        self._average = MEMORY * self._average + (1 - MEMORY) * loss
        if self._average > DIVERGED * self._first:
            raise TrainingError(
                f"the loss has grown from {self._first:.3f} to {self._average:.3f} in {self._steps:,} steps: the "
                "student unlearns; lower objective.learning_rate, or add texts, then run again"
            )


def check_alive(student: npt.NDArray[np.floating[Any]], teacher: npt.NDArray[np.floating[Any]]) -> None:
    """Check that a student still distinguishes texts.

    Args:
        student, teacher: vectors of the same texts, [n, dim], rows of unit L2 norm.

    Raises:
        TrainingError: the student's vectors hold something that is not a number; or all of them point in one direction,
            and the teacher's do not.
    """
    if not np.isfinite(student).all():
        raise TrainingError(
            "the student's vectors are no longer numbers; lower objective.learning_rate or raise student.ridge, then "
            "run again"
        )
    alike, expected = (float(np.square(rows.astype(np.float64).mean(axis=0)).sum()) for rows in (student, teacher))
    if alike > ALIKE and expected < NOT_ALIKE:
        raise TrainingError(
            f"the student is dead: the mean cosine between its vectors of {len(student)} different texts is "
            f"{alike:.3f}, the teacher's is {expected:.3f}; lower objective.learning_rate, then run again"
        )


def check_apart(train: Iterable[str], held_out: Iterable[str]) -> None:
    """Check that no text that judges the student is among those that it learns from.

    Case, white space and marks at the ends do not count.

    Raises:
        TextsError: there is one; the message shows it.
    """
    kept = {same(text) for text in held_out}
    for text in train:
        if same(text) in kept:
            raise TextsError(f"{text[:80]!r} is held out and is trained on too; collect the texts again (--force)")


def say_cut(texts: Sequence[str], tokenizer: Any, window: int, *, who: str) -> float:
    """Warn if over one in a hundred texts is longer than a window.

    Args:
        texts: a sample of :data:`CUT_SAMPLE` training texts, prompts included.
        tokenizer: a ``tokenizers.Tokenizer`` that does not truncate.
        window: the window in tokens.
        who: whose window it is, for the message.

    Returns:
        The share of longer texts.
    """
    return say_longer([len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))], window, who=who)


def say_longer(lengths: Sequence[int], window: int, *, who: str) -> float:
    """Like :func:`say_cut`, for texts whose lengths in tokens are known."""
    share = float(np.mean([length > window for length in lengths])) if lengths else 0.0
    if share > CUT_SHARE:
        progress.warn(
            f"{share:.0%} of the texts are longer than the {who}'s window of {window} tokens and are cut: "
            "lower texts.max_chars, or raise max_length"
        )
    return share
