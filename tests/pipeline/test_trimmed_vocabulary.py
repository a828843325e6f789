"""A bundle whose vocabulary is trimmed: exported or distilled, certified, and smaller."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgeleaf
from edgeleaf import QueryEncoder
from edgeleaf.errors import InputError, ModelError, TextsError
from tests.conftest import needs, tiny_texts
from tests.graph.architectures import write_architecture

pytestmark = pytest.mark.usefixtures("quick")


def vocabulary_of(model: Path) -> int:
    return len(json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])


@pytest.mark.slow
def test_export_with_the_tokens_of_some_texts_and_a_language(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    needs("wordfreq")
    model = write_architecture(tmp_path, "roberta")
    texts = tiny_texts(400, low=2, high=8, seed=8)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    files = [tmp_path / "texts.txt"]
    result = edgeleaf.export(str(model), output=tmp_path / "out", vocab_from=files, languages=["en"])
    assert result.certificate.passed
    facts = result.manifest.student
    assert facts["whole_vocabulary"] == 421
    assert facts["held_out_with_other_tokens"] == 0
    assert vocabulary_of(result.bundle / "student") == result.manifest.tokenizer["vocabulary"] < 400
    assert result.manifest.held_out == {"origin": "texts.txt", "texts": 200}
    expected = SentenceTransformer(str(model), device="cpu").encode(texts, normalize_embeddings=True)
    found = QueryEncoder.load(result.bundle).encode(texts)
    assert np.sum(expected * found, axis=1).min() > 0.97  # an int8 file of random weights, see test_architectures.py


@pytest.mark.slow
def test_a_recipe_whose_student_keeps_the_tokens_of_its_texts(tmp_path: Path, tiny_recipe: Path) -> None:
    for seed, name in enumerate(("queries.txt", "documents.txt")):
        texts = tiny_texts(1500, low=12, high=30, seed=seed)
        few = [" ".join(word for word in text.split() if word < "n") for text in texts]
        (tmp_path / name).write_text("\n".join(few))
    recipe = tmp_path / "trimmed.toml"
    recipe.write_text(tiny_recipe.read_text().replace("[student]", "[student]\ntrim_vocabulary = true"))
    result = edgeleaf.run(recipe, output=tmp_path / "out")
    assert result.certificate.passed
    assert result.certificate.parity.mismatches == 0
    student = result.manifest.student
    assert result.manifest.tokenizer["vocabulary"] < student["whole_vocabulary"]
    assert student["held_out_with_other_tokens"] == 0
    again = edgeleaf.run(recipe, output=tmp_path / "out")
    assert again.manifest.student == student


def test_files_that_change_sides_are_read_again(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[object, object]] = []

    def noted(folder: Path, files: object, *, others: object = (), calibration: int = 1) -> None:
        read.append((files, others))

    def stop(*_: object, **__: object) -> None:
        raise ModelError("far enough")

    monkeypatch.setattr("edgeleaf.pipeline.export.check_texts", noted)
    monkeypatch.setattr("edgeleaf.pipeline.export.normalized_copy", stop)
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    for seed, file in enumerate((one, other)):
        file.write_text("\n".join(tiny_texts(90, low=2, high=8, seed=seed)))
    for texts, vocabulary in (([one], [other]), ([], [one, other])):
        with pytest.raises(ModelError, match="far enough"):
            edgeleaf.export(str(tiny_student), output=tmp_path / "out", texts=texts, vocab_from=vocabulary)
    assert read == [([one], [other]), ([], [one, other])]


def test_languages_need_texts(tmp_path: Path) -> None:
    needs("wordfreq")
    with pytest.raises(InputError, match="languages need texts to check with: give --texts, queries in these lang"):
        edgeleaf.export("no-such-model", output=tmp_path / "out", languages=["de"])


def test_too_few_texts_to_hold_some_out(tmp_path: Path, tiny_student: Path) -> None:
    (tmp_path / "few.txt").write_text("\n".join(tiny_texts(60, low=2, high=8, seed=8)))
    with pytest.raises(TextsError, match=r"few\.txt: \d\d distinct texts; at least 80 are needed, of which half are"):
        edgeleaf.export(str(tiny_student), output=tmp_path / "out", vocab_from=[tmp_path / "few.txt"])
    assert not (tmp_path / "out").exists()
