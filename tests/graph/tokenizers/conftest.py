"""What a graph takes, for the tests of every kind of tokenizer."""

from __future__ import annotations

import pytest

from edgeleaf.bundle.feed import INPUTS, Input


@pytest.fixture(scope="session", params=INPUTS)
def takes(request: pytest.FixtureRequest) -> Input:
    found: Input = request.param
    return found
