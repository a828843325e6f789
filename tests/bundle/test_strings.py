"""edgeleaf.bundle.strings: what users pass becomes exact strings, or is refused with its type named."""

from __future__ import annotations

import copy
import enum
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import InputError, QueryEncoder
from edgeleaf.bundle.encoder import BATCH_CHARACTERS, ENCODE_BATCH, PADDING, batches
from edgeleaf.bundle.strings import exact_strings


class Label(str, enum.Enum):  # noqa: UP042
    LOST = "lost parcel"


class Lazy(str):
    def __str__(self) -> str:
        raise RuntimeError("not here")


class Column:
    """A column of a table, as pandas and pyarrow have them."""

    ndim = 1

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def tolist(self) -> list[Any]:
        return self._values


@pytest.mark.parametrize(
    "texts",
    [
        ["lost parcel", "a\0b"],
        ("lost parcel", "a\0b"),
        iter(["lost parcel", "a\0b"]),
        [Label.LOST, Lazy("a\0b")],
        [np.str_("lost parcel"), "a\0b"],
        np.array(["lost parcel", "a\0b"]),
        np.array(["lost parcel", "a\0b"], dtype=object),
        Column(["lost parcel", "a\0b"]),
    ],
    ids=["list", "tuple", "iterator", "subclasses", "numpy.str_", "numpy", "numpy of objects", "column"],
)
def test_strings_are_exact(texts: Any) -> None:
    found = exact_strings(texts)
    assert found == ["lost parcel", "a\0b"]
    assert {type(text) for text in found} == {str}


def test_columns_of_tables() -> None:
    """pandas, polars and pyarrow are installed by other packages of the tests; none of them is required."""
    values = ["lost parcel", "a\0b"]
    for package, kind in (("pandas", "Series"), ("polars", "Series"), ("pyarrow", "array")):
        table = pytest.importorskip(package)
        assert exact_strings(getattr(table, kind)(values)) == values


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("lost", r"encode got one str; .*encode\(\[text\]\)"),
        (b"lost", "encode got one bytes"),
        ({"lost": 1}, "encode got a dict; a list of strings is needed, in the order"),
        ({"lost": 1}.keys(), "encode got a dict_keys"),
        ({"lost"}, "encode got a set"),
        (frozenset(["lost"]), "encode got a frozenset"),
        (np.array([["lost"]]), "encode got a ndarray of 2 dimensions"),
        (np.array("lost"), "encode got a ndarray of 0 dimensions"),
        (3, "encode got int"),
        (None, "encode got NoneType"),
        (["a", None], "text 1 is NoneType"),
        (["a", float("nan")], "text 1 is float"),
        (["a", b"b"], "text 1 is bytes"),
        ([["a"]], "text 0 is list"),
        (["a", "\ud800"], "text 1 holds half a surrogate pair"),
    ],
)
def test_what_is_no_sequence_of_strings_is_refused_by_name(texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        exact_strings(texts)


def test_batches_hold_texts_of_like_length() -> None:
    lengths = [19] * 31 + [1000] + [100_000] * 3 + [0]
    found = list(batches(lengths))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        longest, shortest = (pick(lengths[place] for place in batch) for pick in (max, min))
        assert len(batch) <= ENCODE_BATCH
        assert longest - shortest <= PADDING
        assert len(batch) == 1 or len(batch) * longest <= BATCH_CHARACTERS
    assert len(found) == 6
    assert list(batches([])) == []


def test_an_encoder_is_copied_and_pickled_by_what_it_was_loaded_from(bundle: Path) -> None:
    encoder = QueryEncoder.load(bundle, dims=8)
    expected = encoder.encode(["where is my parcel", Label.LOST])
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder), copy.copy(encoder)):
        np.testing.assert_array_equal(other.encode(["where is my parcel", "lost parcel"]), expected)
    assert encoder.encode([]).shape == (0, 8)
    with pytest.raises(InputError, match="load it in each process"):
        pickle.dumps(QueryEncoder(encoder._session, space=encoder.space))
