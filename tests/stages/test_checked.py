"""edgeleaf.stages.checked: a manifest's gates are numbers in their ranges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgeleaf.errors import BundleError
from edgeleaf.recipe.specs import Gates
from edgeleaf.stages.checked import gates_of


def manifest(**gates: object) -> Any:
    return SimpleNamespace(gates=gates)


def test_gates_that_are_right_are_taken() -> None:
    found = gates_of(manifest(cosine_mean=0.9, token_mismatches=0, file_mb=24, overlap_at_10=None, cosine_p01=False))
    assert found == Gates(cosine_mean=0.9, token_mismatches=0, file_mb=24, overlap_at_10=None, cosine_p01=False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cosine_mean", "0.9", 'gate cosine_mean is "0.9"; needed: a number from -1 to 1, or false to ask nothing'),
        ("cosine_mean", True, "gate cosine_mean is true; needed: a number from -1 to 1"),
        ("cosine_mean", float("nan"), "gate cosine_mean is NaN; needed: a number from -1 to 1"),
        ("cosine_mean", 1.5, "gate cosine_mean is 1.5; needed: a number from -1 to 1"),
        ("cosine_mean", [0.9], "gate cosine_mean is [0.9]; needed"),
        ("token_mismatches", 0.5, "gate token_mismatches is 0.5; needed: a whole number from 0 to 1000000000"),
        ("file_mb", 10**400, "gate file_mb is 1000"),
        ("colour", 1, "gates that this edgeleaf does not know: colour"),
    ],
)
def test_a_gate_that_is_wrong_is_one_line(name: str, value: object, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        gates_of(manifest(**{name: value}))
    assert message in str(caught.value) and "\n" not in str(caught.value)
