"""edgeleaf.texts.spool: rows come back from disk as they were, and tables of ids find them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeleaf.texts.fields import Item
from edgeleaf.texts.spool import Ids, Spool, View, in_pieces

VALUES = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans())
ITEMS = st.builds(Item, st.text(), st.text(), st.text(), st.dictionaries(st.text(), VALUES), st.text(), st.none())


@settings(max_examples=50, deadline=None)
@given(st.lists(ITEMS, max_size=8))
def test_rows_come_back_as_they_were(rows: list[Item]) -> None:
    kept = Spool(iter(rows), Item)
    assert list(kept) == rows and len(kept) == len(rows) and kept[1:] == rows[1:]
    assert [type(value) for item in kept for value in item.metadata.values()] == [
        type(value) for item in rows for value in item.metadata.values()
    ]
    if rows:
        assert kept[-1] == rows[-1]
    with pytest.raises(IndexError):
        kept[len(rows)]


def test_its_file_is_beside_the_output_and_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    from edgeleaf.texts import spool

    real = spool.tempfile.TemporaryFile
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **given: asked.append(given["dir"]) or real(**given))
    kept = Spool([Item("a", "", "text")], Item, beside=tmp_path / "not" / "there.work")
    assert asked == [tmp_path] and not list(tmp_path.iterdir()) and kept[0].id == "a"


def test_a_view_makes_rows_when_they_are_needed() -> None:
    made: list[int] = []
    view = View(range(10), lambda row: made.append(row) or str(row), np.array([7, 2, 5]))
    assert len(view) == 3 and made == []
    assert (view[1], view[-1], view[:2], made) == ("2", "5", ["7", "2"], [2, 5, 7, 2])
    assert list(View("ab", str.upper)) == ["A", "B"]
    assert not View([], str)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=3), max_size=12), st.lists(st.text(max_size=3), max_size=6))
def test_ids_are_found_and_equal_ones_too(ids: list[str], others: list[str]) -> None:
    table = Ids(iter(ids))
    found = table.places([*ids, *others]).tolist()
    assert [place >= 0 for place in found] == [one in ids for one in (*ids, *others)]
    assert all(ids[place] == one for place, one in zip(found, [*ids, *others], strict=True) if place >= 0)
    second = next((n for n, one in enumerate(ids) if one in ids[:n]), None)
    assert table.twice() == (None if second is None else (ids.index(ids[second]), second))


def test_pieces() -> None:
    assert list(in_pieces(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_pieces("", 2)) == []
