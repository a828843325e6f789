"""A PostgreSQL for the tests of stores, started once per process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.search.places import postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    # In the system's own folder, because a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="pg") as folder, postgres_server(Path(folder) / "d") as url:
        yield url
