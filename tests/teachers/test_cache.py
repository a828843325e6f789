"""The cache of teacher vectors: shards of several processes, old ones, damaged ones, and vectors in a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import ModelError
from edgeleaf.recipe.sources import KINDS, Kind
from edgeleaf.teachers.cache import Shards, teacher_vectors
from edgeleaf.texts.text import Text

ROOT = Path(__file__).parents[2]


class Numbering:
    """A teacher whose vector is the number in the text, as an angle."""

    max_length, precision, batch_size = 128, "", 4
    space = VectorSpace(
        teacher="numbering",
        revision=None,
        weights_sha256="0" * 64,
        pooling="none",
        normalized=True,
        query_prompt="",
        document_prompt="",
        dim=2,
    )

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Return float32 [len(texts), 2]."""
        self.encoded += texts
        angles = np.array([float(text.split()[0]) for text in texts], np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def numbers(first: int, last: int) -> list[Text]:
    return [Text(str(n), KINDS[n % 2]) for n in range(first, last)]


def folder_of(cache: Path) -> Path:
    (folder,) = cache.iterdir()
    return folder


PROCESS = """
import sys
from pathlib import Path
from edgeleaf.teachers.cache import teacher_vectors
from tests.teachers.test_cache import Numbering, numbers
first = int(sys.argv[2])
sys.stdin.readline()
teacher_vectors(numbers(first, first + 1000), Numbering(), Path(sys.argv[1]))
"""


def test_shards_of_two_processes_have_their_own_names(tmp_path: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path), str(first)], stdin=subprocess.PIPE, cwd=ROOT, text=True
        )
        for first in (0, 500, 1000)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait() for process in running] == [0, 0, 0]
    teacher = Numbering()
    found = teacher_vectors(numbers(0, 2000), teacher, tmp_path)
    assert teacher.encoded == []
    expected = Numbering().encode([str(n) for n in range(2000)], kind="query").astype(np.float16)
    assert np.array_equal(found, expected)


def test_a_number_that_another_process_took_is_passed_over(tmp_path: Path) -> None:
    teacher_vectors(numbers(0, 10), Numbering(), tmp_path)
    folder = folder_of(tmp_path)
    (folder / "00001.npy").write_bytes(b"another process is at it")
    teacher_vectors(numbers(10, 20), Numbering(), tmp_path)
    assert (folder / "00001.npy").read_bytes() == b"another process is at it"
    assert sorted(path.name for path in folder.glob("*.keys.npy")) == ["00000.keys.npy", "00002.keys.npy"]
    teacher = Numbering()
    teacher_vectors(numbers(0, 20), teacher, tmp_path)
    assert teacher.encoded == []


def test_the_same_text_as_query_and_document_is_encoded_once_under_one_prompt(tmp_path: Path) -> None:
    teacher = Numbering()
    found = teacher_vectors([Text("1", "query"), Text("2", "query"), Text("1", "document")], teacher, tmp_path)
    assert sorted(teacher.encoded) == ["1", "2"] and np.array_equal(found[0], found[2])


def test_keys_with_zeros_at_their_ends_are_told_apart(tmp_path: Path) -> None:
    """numpy leaves out zero bytes at the end of a string."""
    tmp_path.mkdir(exist_ok=True)
    raw = [bytes(16), b"\x01" + bytes(15), b"\x01\x02" + bytes(14), b"\xff" * 16]
    keys = np.frombuffer(b"".join(raw), "S16")
    vectors = np.eye(4, dtype=np.float32)
    Shards(tmp_path).write(keys, vectors)
    shards = Shards(tmp_path)
    assert shards.has(np.frombuffer(b"".join([*raw, b"\x01\x02\x03" + bytes(13)]), "S16")).tolist() == [True] * 4 + [
        False
    ]
    assert np.array_equal(shards.vectors(keys[::-1].copy(), dim=4), vectors[::-1])


def test_vectors_go_into_a_file(tmp_path: Path) -> None:
    texts = [*numbers(0, 300), *numbers(5, 9)]
    plain = teacher_vectors(texts, Numbering(), tmp_path / "cache")
    file = tmp_path / "train.npy"
    found = teacher_vectors(texts, Numbering(), tmp_path / "cache", file=file)
    assert isinstance(found, np.memmap) and np.array_equal(found, plain) and np.array_equal(np.load(file), plain)
    assert teacher_vectors([], Numbering(), tmp_path / "cache", file=file).shape == np.load(file).shape == (0, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "train.npy"]


@pytest.mark.parametrize("name", ["00000.npy", "00000.keys.npy"])
@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"no array at all"])
def test_a_damaged_shard_is_named(name: str, data: bytes, tmp_path: Path) -> None:
    teacher_vectors(numbers(0, 10), Numbering(), tmp_path)
    path = folder_of(tmp_path) / name
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"keys\.npy: damaged|00000\.npy: damaged") as caught:
        teacher_vectors(numbers(0, 10), Numbering(), tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "delete it and its neighbour of the same number, then run again" in str(caught.value)


def test_a_shard_of_another_shape_is_named(tmp_path: Path) -> None:
    teacher_vectors(numbers(0, 10), Numbering(), tmp_path)
    np.save(folder_of(tmp_path) / "00000.npy", np.zeros((3, 2), np.float16))
    with pytest.raises(ModelError, match=r"00000\.npy: damaged \(shape \(3, 2\)\)"):
        teacher_vectors(numbers(0, 10), Numbering(), tmp_path)


def test_no_folder_is_listed_for_each_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: (listed.append(pattern), glob(path, pattern))[1])
    teacher_vectors(numbers(0, 1500), Numbering(), tmp_path)  # a dozen shards
    assert len(list(folder_of(tmp_path).iterdir())) == 24
    assert listed == ["*.keys.npy"] * 2
