"""The manifest and the identity of a vector space."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeleaf.bundle.manifest import Manifest, VectorSpace, hash_files
from edgeleaf.bundle.space import same_space
from edgeleaf.errors import BundleError, SpaceWarning
from edgeleaf.files import json_text, whole_folder, write_text
from edgeleaf.recipe.presets import quantized_onnx
from tests.conftest import REFERENCE

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
    with pytest.raises(BundleError, match=f"damaged manifest \\({name} is not a table\\)"):
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


def test_an_older_record_keeps_its_id_and_is_the_same_space_with_a_line() -> None:
    newer = replace(SPACE, tokenizer_sha256="b" * 64, attention="bidirectional")
    assert "tokenizer_sha256" not in SPACE.identity() and newer.id != SPACE.id
    with pytest.warns(SpaceWarning, match="did not record its tokenizer and attention direction: not compared"):
        assert same_space(newer, SPACE)
    assert not same_space(newer, replace(newer, tokenizer_sha256="c" * 64))
    assert not same_space(newer, replace(newer, attention="causal"))
    assert not same_space(SPACE, replace(SPACE, dim=384))


def test_the_reference_bundles_space_keeps_its_id() -> None:
    read = Manifest.read(REFERENCE)
    assert read.space.id == "all-mpnet-base-v2/768/28f7a00b6704"


HOSTILE_NAMES = ("../x", "/etc/passwd", "a/../../x", "C:\\x", "C:x", "a\\b", "", ".", "a//b", "a\0b", "a" * 2000)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_files_lie_in_the_folder(tmp_path: Path, name: str) -> None:
    made = replace(manifest(tmp_path), files={name: "0" * 64})
    made.write(tmp_path)
    with pytest.raises(BundleError, match="is not a path inside the folder") as raised:
        Manifest.read(tmp_path)
    assert "\n" not in str(raised.value)
    with pytest.raises(BundleError, match="is not a path inside the folder"):
        made.verify(tmp_path)


def test_a_link_is_no_file_of_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "golden.jsonl").symlink_to(tmp_path / "secret")
    made = replace(manifest(tmp_path / "b"), files={"golden.jsonl": "0" * 64})
    with pytest.raises(BundleError, match='"golden.jsonl" is a link; put the file itself there'):
        made.verify(tmp_path / "b")


@pytest.mark.parametrize(
    ("key", "value"),
    [("dims", []), ("dims", [0]), ("dims", [-1]), ("dims", [769]), ("dims", [True]), ("teacher_max_length", True)],
)
def test_numbers_out_of_range(tmp_path: Path, key: str, value: object) -> None:
    replace(manifest(tmp_path), **{key: value}).write(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=f"damaged manifest \\({key}"):
        Manifest.read(tmp_path)
