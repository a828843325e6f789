"""encode_counted: tokens as `tokenizers` counts them, and whether a text is longer than the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.bundle.manifest import STUDENT, Manifest
from edgeleaf.bundle.session import ROW_LENGTH, session, with_outputs
from edgeleaf.errors import BundleError, InputError
from tests.conftest import needs

TEXTS = [
    "",
    "river",
    "😀 é",
    "\0",
    " " * 50_000,
    *("river " * n for n in range(70)),
    "river " * 30_000,
    "x" * 50_000,
]


def test_tokens_are_counted_and_texts_beyond_the_window_named(bundle: Path) -> None:
    needs("tokenizers")
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    manifest = Manifest.read(bundle)
    window = int(manifest.fact("tokenizer", "max_length"))
    tokenizer = reference_tokenizer((bundle / STUDENT / "tokenizer.json").read_text(encoding="utf-8"), window)
    tokenizer.no_truncation()
    lengths = np.array([len(tokenizer.encode(manifest.space.query_prompt + text).ids) for text in TEXTS])
    encoder = QueryEncoder.load(bundle, counts=True)
    assert encoder.window == window
    found = encoder.encode_counted(TEXTS)
    np.testing.assert_array_equal(found.tokens, np.minimum(lengths, window))
    np.testing.assert_array_equal(found.cut, lengths > window)
    assert found.cut.any() and (lengths == window).any()
    np.testing.assert_array_equal(found.vectors, QueryEncoder.load(bundle).encode(TEXTS))


def test_a_file_of_an_older_edgeleaf_counts_a_full_window_as_cut(bundle: Path) -> None:
    data = (bundle / "query_encoder.onnx").read_bytes()
    old = data.replace(ROW_LENGTH.encode(), b"t" * len(ROW_LENGTH))
    assert old != data
    encoder, older = (QueryEncoder.load(one, counts=True) for one in (data, old))
    found, before = (one.encode_counted(TEXTS) for one in (encoder, older))
    np.testing.assert_array_equal(found.tokens, before.tokens)
    np.testing.assert_array_equal(before.cut, found.tokens == encoder.window)


def test_no_texts_and_an_encoder_that_does_not_count(bundle: Path) -> None:
    encoder = QueryEncoder.load(bundle, counts=True)
    found = encoder.encode_counted([])
    assert (found.vectors.shape, found.tokens.shape, found.cut.shape) == ((0, encoder.dim), (0,), (0,))
    with pytest.raises(InputError, match="counts=True"):
        QueryEncoder.load(bundle).encode_counted(["a"])


def test_an_output_that_no_node_makes(bundle: Path) -> None:
    with pytest.raises(BundleError, match="cannot open it"):
        session(bundle / "query_encoder.onnx", threads=1, also=("n" * 200,))
    assert with_outputs(b"", ["a"])[:1] == b"\x3a"
