"""Rounding weights: no pair saturates, and the outputs lose less than by rounding to nearest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeleaf.graph.quantization.rounding import PAIR_LIMIT, SCALE_BITS, column_scales, round_columns, smoothing

RANDOM = np.random.default_rng(0)
INPUTS = (RANDOM.normal(size=(2000, 160)) @ RANDOM.normal(size=(160, 160))).astype(np.float32)
WEIGHT = (RANDOM.normal(size=(160, 24)) * RANDOM.uniform(0.1, 3, size=24)).astype(np.float32)

matrices = arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-1e6, 1e6, width=32))


def pair_sums(values: np.ndarray) -> np.ndarray:
    size = np.abs(values.astype(int))
    return np.vstack([size, np.zeros((len(size) % 2, size.shape[1]), int)]).reshape(-1, 2, size.shape[1]).sum(axis=1)


@given(matrices)
def test_no_pair_exceeds_what_sixteen_bits_hold(weight: np.ndarray) -> None:
    values, scale = round_columns(weight)
    assert pair_sums(values).max() <= PAIR_LIMIT
    assert 255 * PAIR_LIMIT < 2**15
    assert np.all(np.abs(values * scale.astype(float) - weight) <= scale * 1.001)


@given(matrices)
def test_scales_have_few_bits_and_are_hardly_larger_than_needed(weight: np.ndarray) -> None:
    scale = column_scales(weight)
    mantissa, _ = np.frexp(scale)
    assert np.all(mantissa * 2**SCALE_BITS == np.round(mantissa * 2**SCALE_BITS))
    size = np.abs(weight).max(axis=0)
    assert np.all(scale <= np.maximum(2 * size / PAIR_LIMIT * (1 + 2 / 2**SCALE_BITS), 1e-30))


@pytest.mark.parametrize("rows", [160, 159])
def test_compensated_errors_cost_the_outputs_less(rows: int) -> None:
    inputs, weight = INPUTS[:, :rows], WEIGHT[:rows]
    lost = []
    for moments in (None, inputs.T @ inputs):
        values, scale = round_columns(weight, moments)
        assert pair_sums(values).max() <= PAIR_LIMIT
        lost.append(np.linalg.norm(inputs @ (values * scale - weight)))
    assert lost[1] < 0.75 * lost[0]


def test_pairs_are_rounded_in_the_order_of_their_power_however_they_lie() -> None:
    moments = INPUTS.T @ INPUTS
    order = np.random.default_rng(1).permutation(80)[:, None] * 2 + np.arange(2)  # pairs stay together
    order = order.ravel()
    there, scale = round_columns(WEIGHT, moments)
    moved, same = round_columns(WEIGHT[order], moments[np.ix_(order, order)])
    assert np.array_equal(scale, same)
    assert (moved != there[order]).mean() < 1e-3  # sums in another order


def test_an_input_that_is_never_seen_does_no_harm() -> None:
    inputs = INPUTS.copy()
    inputs[:, 7] = 0
    values, scale = round_columns(WEIGHT, inputs.T @ inputs)
    assert np.linalg.norm(inputs @ (values * scale - WEIGHT)) < 0.01 * np.linalg.norm(inputs @ WEIGHT)


def test_smoothing_evens_out_the_channels() -> None:
    peak = np.array([30.0, 1.0, 0.0, 2.0], dtype=np.float32)
    weight = RANDOM.normal(size=(4, 8)).astype(np.float32)
    even = peak[[0, 1, 3]] / smoothing(peak, weight, 1.0)[[0, 1, 3]]
    assert even.max() / even.min() == pytest.approx(1, abs=1e-5)
    half = peak[[0, 1, 3]] / smoothing(peak, weight, 0.5)[[0, 1, 3]]
    assert 1 < half.max() / half.min() < 30
    assert np.all(np.isfinite(smoothing(peak, np.zeros_like(weight), 0.5)))
