"""The manifest and the identity of a vector space."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeleaf.bundle import Manifest, VectorSpace, hash_files, write_text
from edgeleaf.errors import BundleError

SPACE = VectorSpace("org/teacher", "main", "a" * 64, "mean", True, "q: ", "", 768)


def manifest(folder: Path) -> Manifest:
    return Manifest(SPACE, "r", "", 128, {}, {}, {}, {}, {}, (768,), hash_files(folder), "0.1.0")


def test_round_trip_and_hashes(tmp_path: Path) -> None:
    write_text(tmp_path / "onnx" / "a.onnx", "a")
    write_text(tmp_path / "latency.json", "{}")
    manifest(tmp_path).write(tmp_path)
    read = Manifest.read(tmp_path)
    assert read == manifest(tmp_path)
    assert set(read.files) == {"onnx/a.onnx"}
    read.verify(tmp_path)


def test_changed_missing_and_unlisted_files(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "a")
    made = manifest(tmp_path)
    write_text(tmp_path / "a", "b")
    with pytest.raises(BundleError, match="a: damaged: sha256 3e23e8160039…"):
        made.verify(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(BundleError, match="a: missing, though"):
        made.verify(tmp_path)
    with pytest.raises(BundleError, match="lists no other"):
        made.verify(tmp_path, "other")


@pytest.mark.parametrize(
    "change", [{"dim": 384}, {"weights_sha256": "b" * 64}, {"query_prompt": ""}, {"pooling": "cls"}]
)
def test_whatever_makes_another_space_changes_the_id(change: dict[str, object]) -> None:
    assert replace(SPACE, **change).id != SPACE.id  # type: ignore[arg-type]


def test_where_the_teacher_was_found_does_not() -> None:
    assert replace(SPACE, teacher="/models/teacher", revision=None).id == SPACE.id


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 1}', json.dumps({"schema_version": 1, "space": {}})])
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "edgeleaf.json").write_text(text)
    with pytest.raises(BundleError, match="damaged manifest"):
        Manifest.read(tmp_path)


def test_a_file_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk is gone"):
        write_text(tmp_path / "a", "a")
    assert not list(tmp_path.iterdir())
