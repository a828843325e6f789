"""The manifest and the identity of a vector space."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeleaf.bundle.manifest import Manifest, VectorSpace, hash_files
from edgeleaf.errors import BundleError
from edgeleaf.files import json_text, whole_folder, write_text
from edgeleaf.recipe.presets import quantized_onnx

SPACE = VectorSpace("org/teacher", "main", "a" * 64, "mean", True, "q: ", "", 768)


def manifest(folder: Path) -> Manifest:
    return Manifest(SPACE, "r", "", 128, {}, {}, {}, {}, {}, (768,), hash_files(folder), "0.1.0")


def test_round_trip_and_hashes(tmp_path: Path) -> None:
    write_text(tmp_path / "onnx" / "a.onnx", "a")
    write_text(tmp_path / "latency.json", "{}")
    write_text(tmp_path / "README.md", "a card, to be added to")
    manifest(tmp_path).write(tmp_path)
    read = Manifest.read(tmp_path)
    assert read == manifest(tmp_path)
    assert set(read.files) == {"onnx/a.onnx"}
    read.verify(tmp_path)


def test_the_quantised_encoder_is_the_first_that_is_there(tmp_path: Path) -> None:
    write_text(tmp_path / "onnx/model.onnx", "a")
    assert quantized_onnx(tmp_path) is None
    for name in ("onnx/model_fp16.onnx", "onnx/model_q4.onnx", "onnx/model_qint8.onnx"):
        write_text(tmp_path / name, "a")
        assert quantized_onnx(tmp_path) == tmp_path / name


def test_a_model_card_in_an_older_manifest_may_be_edited(tmp_path: Path) -> None:
    replace(manifest(tmp_path), files={"README.md": "0" * 64}).verify(tmp_path)


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


DAMAGED = ("", "[]", "{}", "3", '{"schema_version": 1}', json.dumps({"schema_version": 1, "space": {}}))


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "edgeleaf.json").write_text(text)
    with pytest.raises(BundleError, match="damaged manifest"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("name", ["files", "held_out", "gates"])
def test_a_table_that_is_none(tmp_path: Path, name: str) -> None:
    replace(manifest(tmp_path), **{name: []}).write(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=f"damaged manifest \\({name} is no table\\)"):
        Manifest.read(tmp_path)


def test_a_file_is_no_bundle_folder(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    with pytest.raises(BundleError, match=r"a\.onnx is a file; a bundle folder is needed"):
        Manifest.read(tmp_path / "a.onnx")


def test_lists_of_numbers_stand_on_one_line() -> None:
    value = {"times": [1.5, -2e-7, 3], "texts": ["a [\n 1\n]", "b"], "none": []}
    assert json.loads(json_text(value)) == value
    assert '"times": [1.5, -2e-07, 3]' in json_text(value)


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path) -> None:
    def fill(text: str, *, fail: bool = False) -> None:
        with whole_folder(tmp_path / "f") as new:
            write_text(new / "a", text)
            if fail:
                raise KeyboardInterrupt

    fill("one")
    with pytest.raises(KeyboardInterrupt):
        fill("two", fail=True)
    assert (tmp_path / "f" / "a").read_text() == "one"
    (tmp_path / "f").rename(tmp_path / ".f.old")  # as a kill between the two renames leaves it
    with pytest.raises(KeyboardInterrupt):
        fill("two", fail=True)
    assert (tmp_path / "f" / "a").read_text() == "one"
    fill("two")
    assert (tmp_path / "f" / "a").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_file_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk is gone"):
        write_text(tmp_path / "a", "a")
    assert not list(tmp_path.iterdir())
