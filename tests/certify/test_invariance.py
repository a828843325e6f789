"""edgeleaf.certify.invariance: catches an encoder whose vectors depend on their neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgeleaf.certify.invariance import batch_invariance, padding_invariance

TEXTS = [f"query number {n} " + "word " * (n % 7) for n in range(20)]


def steady(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), 1 + text.count("r"), 3.0] for text in texts])


def test_a_steady_encoder_is_invariant() -> None:
    found = batch_invariance(steady, TEXTS)
    assert found.cosine_min == pytest.approx(1.0, abs=1e-12)
    assert (found.texts, found.placements) == (20, 60)


def test_a_scale_shared_over_the_batch_is_caught_with_its_text() -> None:
    def shared_scale(texts: Sequence[str]) -> np.ndarray:
        rows = steady(texts)
        step = np.abs(rows).max() / 127
        return np.round(rows / step) * step

    found = batch_invariance(shared_scale, TEXTS)
    assert found.cosine_min < 0.999
    assert found.worst_text in TEXTS


def test_only_one_place_of_the_batch_being_wrong_is_caught() -> None:
    def last_row_broken(texts: Sequence[str]) -> np.ndarray:
        rows = steady(texts)
        if len(texts) > 1:
            rows[-1] = [0.0, 0.0, 1.0]
        return rows

    assert batch_invariance(last_row_broken, TEXTS).cosine_min < 0.9


def test_every_batch_holds_a_long_stranger() -> None:
    longest: list[int] = []

    def watch(texts: Sequence[str]) -> np.ndarray:
        longest.append(max(len(text.split()) for text in texts))
        return steady(texts)

    batch_invariance(watch, TEXTS, alone=steady(TEXTS))
    assert min(longest) >= 400


@pytest.mark.parametrize("window", [3, 50, 400])
def test_padding_is_one_text_beside_one_that_fills_the_window(window: int) -> None:
    lengths: list[list[int]] = []

    def watch(texts: Sequence[str]) -> np.ndarray:
        lengths.append([len(text.split()) for text in texts])
        return steady(texts)

    found = padding_invariance(watch, TEXTS, window=window, alone=steady(TEXTS))
    assert (found.texts, found.placements, found.cosine_min) == (20, 20, pytest.approx(1.0, abs=1e-12))
    assert lengths == [[len(text.split()), window] for text in TEXTS]


def test_padding_that_leaks_is_caught_with_its_text() -> None:
    def leaky(texts: Sequence[str]) -> np.ndarray:
        rows = steady(texts)
        longest = max(len(text) for text in texts)
        rows[:, 1] += [(longest - len(text)) / 50 for text in texts]
        return rows

    found = padding_invariance(leaky, TEXTS, window=200)
    assert found.cosine_min < 0.999
    assert found.worst_text in TEXTS


def test_no_texts_cannot_be_padded() -> None:
    with pytest.raises(ValueError, match="no texts to pad"):
        padding_invariance(steady, [], window=8)


def test_a_batch_of_one_is_no_company() -> None:
    with pytest.raises(ValueError, match="sizes from 2"):
        batch_invariance(steady, TEXTS, batch_sizes=(1, 4))
