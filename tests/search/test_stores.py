"""edgeleaf.search.stores: a store is found by the kind of its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeleaf.errors import InputError
from edgeleaf.pipeline.index import search_index
from edgeleaf.search import Index
from edgeleaf.search.stores import store_of


@pytest.mark.parametrize("place", ["docs", "./docs", "/tmp/docs", Path("docs"), "C:\\docs", "a:b"])
def test_a_path_is_a_folder(place: str | Path) -> None:
    assert store_of(place) is Index


def test_a_kind_that_nobody_wrote_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^sqlite:///docs\.db: no store of the kind 'sqlite'; known: folder$"):
        store_of("sqlite:///docs.db")
    with pytest.raises(InputError, match="no store of the kind 'postgresql'"):
        search_index(tmp_path, "postgresql://host/docs", ["a"])
