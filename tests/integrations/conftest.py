"""What the tests of all frameworks share: texts, and what edgeleaf's own search finds among them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.search import Index
from tests.conftest import computing_in_float32, tiny_texts

DOCUMENTS = tiny_texts(40, low=6, high=12, seed=21)
QUERIES = [" ".join(text.split()[:4]) for text in DOCUMENTS[:8]]
K = 5


@dataclass(frozen=True)
class Own:
    """What edgeleaf itself gives: the vectors of both sides, and the nearest documents of each query."""

    queries: np.ndarray
    documents: np.ndarray
    nearest: list[list[str]]
    scores: np.ndarray


@pytest.fixture(autouse=True)
def _in_float32() -> Iterator[None]:
    with computing_in_float32():
        yield


@pytest.fixture(scope="session")
def own(tiny_bundle: Path) -> Own:
    """The library's own search of DOCUMENTS, encoded by the teacher as ``edgeleaf index`` has it encode them."""
    from edgeleaf.teachers.opening import teacher_of

    manifest = Manifest.read(tiny_bundle)
    teacher = teacher_of(manifest)
    teacher.widened(at_least=manifest.teacher_max_length)
    with computing_in_float32():
        held, encoder = teacher.encode(DOCUMENTS, kind="document"), QueryEncoder.load(tiny_bundle)
    asked = encoder.encode(QUERIES)
    index = Index(space=encoder.space, documents=[(text, text) for text in DOCUMENTS], vectors=held)
    hits = index.search(asked, space=encoder.space, k=K)
    scores = np.array([[hit.score for hit in row] for row in hits])
    return Own(asked, held, [[hit.id for hit in row] for row in hits], scores)


@pytest.fixture(scope="session")
def without_teacher(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle on a machine that does not have its teacher."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("without-teacher") / "bundle")
    manifest = json.loads((folder / "edgeleaf.json").read_text(encoding="utf-8"))
    manifest["space"]["teacher"] = "nobody/no-such-teacher"
    (folder / "edgeleaf.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def one_line(call: Callable[[], object]) -> str:
    """Return the message of the error that a call raises, which has to be one line."""
    from edgeleaf import EdgeleafError

    with pytest.raises(EdgeleafError) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
