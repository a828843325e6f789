"""Shards say what made them, and a shard that does not match is named, not used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeleaf.distributed.shards import check_sidecar, read_shard, shard_name, texts_file, texts_of, write_shard
from edgeleaf.errors import PlaceError
from edgeleaf.remote import Place
from edgeleaf.texts.text import Text
from tests.distributed.teachers import Counting, Opener

NAME = "00ff"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Place, Counting]:
    place, teacher = Place(tmp_path / "shards"), Counting(Opener(tmp_path))
    write_shard(place, NAME, np.eye(3, 8, dtype=np.float32), teacher, "t" * 64)
    return place, teacher


def test_texts_come_back_whatever_they_hold() -> None:
    texts = [
        Text("line\nfeed\r\u2028\x85\x00 end", "query"),
        Text("\U0001f4e6 päckchen", "document"),
        Text("", "query"),
    ]
    assert texts_of(texts_file(texts)) == texts


def test_a_shard_holds_its_vectors_and_what_made_them(made: tuple[Place, Counting], tmp_path: Path) -> None:
    place, teacher = made
    assert np.array_equal(read_shard(place, NAME, teacher, 3), np.eye(3, 8, dtype=np.float16))
    sidecar = json.loads((tmp_path / "shards" / f"{NAME}.json").read_text())
    assert sidecar["rows"] == 3
    assert sidecar["space"]["weights_sha256"] == "0" * 64
    assert len(sidecar["sha256"]) == 64
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["00ff.json", "00ff.npy"]


def test_the_name_of_a_shard_follows_from_its_texts_and_their_order() -> None:
    keys = np.frombuffer(bytes(range(64)), "S16")
    assert shard_name(keys) == shard_name(keys.copy())
    assert len({shard_name(keys), shard_name(keys[::-1]), shard_name(keys[:2])}) == 3


def test_another_teacher_or_number_of_texts_is_named(made: tuple[Place, Counting], tmp_path: Path) -> None:
    place, teacher = made
    other = Counting(Opener(tmp_path, weights="1" * 64))
    with pytest.raises(
        PlaceError, match=r"00ff\.json does not match: weights_sha256 is \"000+…?.*needed is \"111.*run again"
    ):
        check_sidecar(place, NAME, other, 3)
    with pytest.raises(PlaceError, match=r"00ff\.json does not match: rows is 3, needed is 4; remove .*00ff\.json"):
        check_sidecar(place, NAME, teacher, 4)


@pytest.mark.parametrize("harm", ["a byte", "the end", "everything"])
def test_vectors_that_do_not_match_their_sidecar_are_named(
    made: tuple[Place, Counting], tmp_path: Path, harm: str
) -> None:
    place, teacher = made
    file = tmp_path / "shards" / f"{NAME}.npy"
    data = bytearray(file.read_bytes())
    if harm == "a byte":
        data[-1] ^= 1
    file.write_bytes(data[: {"a byte": len(data), "the end": -2, "everything": 0}[harm]])
    with pytest.raises(PlaceError, match=r"00ff\.npy does not match its sidecar: sha256 .*run again; only this shard"):
        read_shard(place, NAME, teacher, 3)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"rows": "three"}', "\x00", '{"rows": 1e999}'])
def test_a_sidecar_that_is_none_is_one_line(made: tuple[Place, Counting], tmp_path: Path, text: str) -> None:
    place, teacher = made
    (tmp_path / "shards" / f"{NAME}.json").write_text(text)
    with pytest.raises(PlaceError, match=r"00ff\.json: damaged \(.*remove ") as caught:
        check_sidecar(place, NAME, teacher, 3)
    assert "\n" not in str(caught.value)
