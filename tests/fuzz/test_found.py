"""What the fuzzers found, mended since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf.bundle.space import VectorSpace
from edgeleaf.certify.certificate import Certificate
from edgeleaf.errors import LONGEST_MESSAGE, BundleError, ExportError, RecipeError
from edgeleaf.graph.tokenizers.spec import reference_tokenizer
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.search import Index
from tests.fuzz.readers import BUNDLE, tokenizer_settings


def test_a_header_of_npy_that_ends_in_the_middle(tmp_path: Path) -> None:
    space = VectorSpace("t", None, "0" * 64, "mean", True, "", "", 4)
    Index(space=space, documents=[("a", "b")], vectors=np.ones((1, 4), np.float16)).save(tmp_path / "index")
    file = tmp_path / "index" / "vectors.npy"
    data = file.read_bytes()
    file.write_bytes(data.replace(b"}", b"(", 1))
    with pytest.raises(BundleError, match=r"vectors\.npy"):
        Index.load(tmp_path / "index")


def test_a_very_long_value_does_not_make_a_very_long_message(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"{'a' * 5000} = 1\n")
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path / "r.toml")
    assert len(str(caught.value)) <= LONGEST_MESSAGE


def test_a_certificate_of_no_space() -> None:
    text = (BUNDLE / "certificate.json").read_text(encoding="utf-8")
    certificate = json.loads(text)
    del certificate["space"]["id"]
    with pytest.raises(BundleError, match=r"damaged certificate \(space has no id\)"):
        Certificate.from_json(json.dumps(certificate))


def test_a_tokenizer_that_fails_at_the_first_unknown_word() -> None:
    settings: dict[str, Any] = tokenizer_settings()
    del settings["model"]["vocab"]["[UNK]"]
    with pytest.raises(ExportError, match=r"cannot encode an unknown word: .*Missing \[UNK\] token"):
        reference_tokenizer(settings, 16)
