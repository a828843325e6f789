"""What tests of the pipeline share: a PostgreSQL as the tests of stores have it, and what makes a run quicker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeleaf.latency import measure as latency
from edgeleaf.latency import runner
from edgeleaf.texts import documentation as texts_of_the_machine
from edgeleaf.texts.text import Text
from tests.search.conftest import postgres as postgres


@pytest.fixture
def briefly_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time only the fused file, and briefly: loading torch in every timing process would take seconds."""
    measure = latency.measure

    def fused_only(bundle: Path, **options: Any) -> dict[str, Any]:
        return measure(bundle, **(options | {"threads": [1], "repeats": 2, "teacher": None, "include_student": False}))

    monkeypatch.setattr(latency, "measure", fused_only)
    monkeypatch.setattr(runner, "BATCH_VISIT_S", 0.01)


@pytest.fixture(scope="session")
def documentation() -> Iterator[None]:
    """Read the machine's documentation only once for all tests of this folder."""
    candidates: Iterator[Text] = texts_of_the_machine._candidates()
    read: list[Text] = []

    def again() -> Iterator[Text]:
        for place in itertools.count():
            if place == len(read):
                following = next(candidates, None)
                if following is None:
                    return
                read.append(following)
            yield read[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts_of_the_machine, "_candidates", again)
        yield


@pytest.fixture
def quick(briefly_timed: None, fewer_code_points: None, documentation: None) -> None:
    """All that makes a run quicker without another student."""
