"""Whatever ruins a distillation is reported: divergence, dead students, cut texts, held-out texts in training."""

from __future__ import annotations

import numpy as np
import pytest

from edgeleaf.errors import TextsError, TrainingError
from edgeleaf.training.guards import DIVERGED, LossWatch, check_alive, check_apart, say_cut


def test_a_loss_that_grows_and_stays_is_divergence() -> None:
    watch = LossWatch()
    with pytest.raises(
        TrainingError, match=r"grown from 0\.400 to 0\.\d+ in \d+ steps.*lower objective\.learning_rate"
    ):
        for step in range(1000):
            watch.see(0.4 if step < 60 else 0.4 * DIVERGED * 1.1)
    assert step < 60 + 80


def test_noise_and_a_passing_rise_are_none() -> None:
    watch, dice = LossWatch(), np.random.default_rng(0)
    for step in range(2000):
        rise = 1.3 if 60 < step < 300 else 1.0  # as the start of every training here
        watch.see(0.6 * rise * dice.uniform(0.7, 1.3))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_no_number_stops_at_once(loss: float) -> None:
    with pytest.raises(TrainingError, match="no longer a number"):
        LossWatch().see(loss)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_student_whose_vectors_are_all_alike_is_dead() -> None:
    dice = np.random.default_rng(1)
    teacher = unit(dice.normal(size=(50, 16)))
    dead = unit(np.ones((50, 16)) + 0.02 * dice.normal(size=(50, 16)))
    with pytest.raises(
        TrainingError, match=r"dead: the mean cosine .* 50 different texts is 1\.000, the teacher's is 0"
    ):
        check_alive(dead, teacher)
    with pytest.raises(TrainingError, match="no longer numbers; lower objective"):
        check_alive(np.where(teacher > 0, np.nan, teacher), teacher)
    check_alive(teacher, teacher)
    check_alive(unit(teacher + 0.5 * dice.normal(size=teacher.shape)), teacher)
    check_alive(dead, dead)  # if the teacher's vectors are like that, the student may be too


def test_held_out_texts_in_training_are_found_whatever_their_case() -> None:
    check_apart(["a b", "c d"], ["a b c"])
    with pytest.raises(TextsError, match="'A  b' is held out and is trained on too"):
        check_apart(["c d", "A  b"], ["x", "a B. "])


def test_texts_longer_than_the_window_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeleaf.training import guards

    class Words:
        def encode_batch(self, texts: list[str]) -> list[object]:
            return [type("Encoding", (), {"ids": text.split()}) for text in texts]

    said: list[str] = []
    monkeypatch.setattr(guards.progress, "say", said.append)
    assert say_cut(["a b", "a b c d"], Words(), 4, who="student") == 0.0
    assert not said
    assert say_cut(["a b", "a b c d"], Words(), 3, who="student") == 0.5
    assert said == [
        "50% of the texts are longer than the student's window of 3 tokens and are cut: "
        "lower texts.max_chars, or raise max_length"
    ]
