"""A checkpoint that lacks weights: transformers fills them with random numbers, edgeleaf refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeleaf.errors import ModelError
from edgeleaf.models.loading import _missing_weights, load_sentence_transformer
from edgeleaf.training.student import build_student


def without(model: Path, folder: Path, *names: str) -> Path:
    """A copy of a model whose checkpoint lacks tensors."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in names:
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_checkpoint_that_lacks_weights_is_refused(
    tiny_student: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    load_sentence_transformer(tiny_student)
    lacking = "encoder.layer.1.output.dense.weight"
    with pytest.raises(ModelError, match=rf"the checkpoint lacks {lacking}; transformers would fill in random numbers"):
        load_sentence_transformer(without(tiny_student, tmp_path / "one", lacking))
    names = [f"encoder.layer.0.attention.self.{part}.bias" for part in ("query", "key", "value")]
    with pytest.raises(ModelError, match=r"value\.bias|and 1 others"):
        load_sentence_transformer(without(tiny_student, tmp_path / "four", lacking, *names))
    with pytest.raises(ModelError, match=rf"the checkpoint lacks {lacking}"):  # nor does a student begin with it
        build_student(tmp_path / "one", dim=48, max_length=48)
    assert "Loading weights" not in capfd.readouterr().err


def test_reports_of_both_versions() -> None:
    rows = (
        "Key | Status |",
        "----+----+-",
        "pooler.dense.weight | MISSING | ",
        "embeddings.x | \x1b[31mMISSING\x1b[0m |",
    )
    table = "\n".join((*rows, "old | UNEXPECTED |"))
    assert _missing_weights(table) == ["embeddings.x"]
    line = (
        "Some weights of BertModel were not initialized from the model checkpoint at x and are newly initialized: "
        "['pooler.dense.bias', 'encoder.a', 'encoder.b']\nYou should probably TRAIN"
    )
    assert _missing_weights(line) == ["encoder.a", "encoder.b"]
    assert _missing_weights("") == []
