"""QueryEncoder: what it returns, and the message for each kind of misuse."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeleaf
from edgeleaf import QueryEncoder
from edgeleaf.errors import BundleError, EdgeleafError, InputError
from edgeleaf.vectors import truncate
from tests.conftest import needs, tiny_texts


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> QueryEncoder:
    return QueryEncoder.load(bundle)


def test_vectors_are_unit_in_order_whatever_the_batch(encoder: QueryEncoder) -> None:
    texts = tiny_texts(100, low=1, high=30, seed=5)
    together = encoder.encode(texts)
    assert together.dtype == np.float32
    assert together.shape == (100, encoder.space.dim)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.vstack([encoder.encode([text]) for text in texts])
    assert np.sum(alone * together, axis=1).min() > 0.99999


def test_the_file_is_the_student_with_its_prompt(encoder: QueryEncoder, bundle: Path) -> None:
    needs("sentence_transformers")
    from sentence_transformers import SentenceTransformer

    student = SentenceTransformer(str(bundle / "student"), device="cpu")
    texts = tiny_texts(50, low=2, high=12, seed=6)
    cosine = np.sum(student.encode(texts, prompt_name="query") * encoder.encode(texts), axis=1)
    assert cosine.min() > 0.995


def test_empty_list_and_empty_string(encoder: QueryEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.space.dim)
    assert np.linalg.norm(encoder.encode([""])[0]) == pytest.approx(1, abs=1e-5)


def test_dims(bundle: Path) -> None:
    texts = ["lost parcel", "open file"]
    whole = QueryEncoder.load(bundle).encode(texts)
    cut = QueryEncoder.load(bundle, dims=16).encode(texts)
    assert np.allclose(cut, whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True), atol=1e-6)


@given(st.integers(1, 48))
def test_truncated_vectors_are_unit(dims: int) -> None:
    vectors = np.random.default_rng(dims).normal(size=(5, 48)).astype(np.float32)
    cut = truncate(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dims)
    assert cut.shape == (5, dims)
    assert np.allclose(np.linalg.norm(cut, axis=1), 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=6))
def test_any_text_gives_a_finite_unit_vector(encoder: QueryEncoder, texts: list[str]) -> None:
    try:
        vectors = encoder.encode(texts)
    except InputError as error:
        assert "half a surrogate pair" in str(error)
        return
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_threads_share_one_encoder(encoder: QueryEncoder) -> None:
    texts = tiny_texts(64, low=1, high=20, seed=7)
    expected = encoder.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda _: encoder.encode(texts), range(16)):
            assert np.array_equal(vectors, expected)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one", "encode got one str; a list of strings is needed"),
        (b"one", "encode got one bytes"),
        (7, "encode got int; a list of strings"),
        (["fine", None], "text 1 is NoneType; every text must be a string"),
        ([b"x"], "text 0 is bytes"),
        (["\ud800"], "text 0 holds half a surrogate pair"),
    ],
)
def test_what_is_no_list_of_strings(encoder: QueryEncoder, texts: object, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        encoder.encode(texts)  # type: ignore[arg-type]


def test_errors_are_at_the_top_level() -> None:
    assert edgeleaf.BundleError is BundleError
    assert issubclass(edgeleaf.GateFailed, edgeleaf.EdgeleafError)


def test_input_error_is_a_type_error() -> None:
    assert issubclass(InputError, TypeError)
    assert issubclass(InputError, EdgeleafError)


def copy(bundle: Path, target: Path) -> Path:
    """Copy only the files of a bundle that an encoder opens."""
    shutil.copytree(bundle, target, ignore=shutil.ignore_patterns("student", "onnx"))
    return target


IDENTITY = (
    "CAgSADpHChgKCWlucHV0X2lkcxIBbyIISWRlbnRpdHkSAWdaFwoJaW5wdXRfaWRzEgoKCAgHEgQKAggBYg8KAW8SCgoICAcSBAoCCAFCBAoAEBE="
)
"""A graph of one Identity, input_ids: int64 [1] to output: a model that onnxruntime opens and that is no encoder."""


def test_wrong_paths(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(BundleError, match="no such file or folder"):
        QueryEncoder.load(tmp_path / "none")
    with pytest.raises(BundleError, match=r"is not a bundle: it has no edgeleaf\.json"):
        QueryEncoder.load(tmp_path)
    with pytest.raises(BundleError, match="is a manifest; give the folder"):
        QueryEncoder.load(bundle / "edgeleaf.json")
    (tmp_path / "model.onnx").write_bytes(base64.b64decode(IDENTITY))
    with pytest.raises(BundleError, match="is not a fused query encoder: it takes input_ids: tensor"):
        QueryEncoder.load(tmp_path / "model.onnx")


def test_a_damaged_file_is_found_by_its_hash(tmp_path: Path, bundle: Path) -> None:
    bundle = copy(bundle, tmp_path / "b")
    file = bundle / "query_encoder.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"query_encoder\.onnx: damaged: sha256 "):
        QueryEncoder.load(bundle)
    file.unlink()
    with pytest.raises(BundleError, match=r"query_encoder\.onnx: missing"):
        QueryEncoder.load(bundle)


def test_a_cut_off_onnx_file(tmp_path: Path, bundle: Path) -> None:
    file = tmp_path / "half.onnx"
    file.write_bytes((bundle / "query_encoder.onnx").read_bytes()[:5000])
    with pytest.raises(BundleError, match=r"half\.onnx: onnxruntime .* cannot open it"):
        QueryEncoder.load(file)


def test_other_schema_version(tmp_path: Path, bundle: Path) -> None:
    bundle = copy(bundle, tmp_path / "b")
    manifest = json.loads((bundle / "edgeleaf.json").read_text(encoding="utf-8"))
    (bundle / "edgeleaf.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(BundleError, match="schema version 99, this edgeleaf reads 1"):
        QueryEncoder.load(bundle)
    (bundle / "edgeleaf.json").write_text("{")
    with pytest.raises(BundleError, match="damaged manifest"):
        QueryEncoder.load(bundle)


def test_a_file_is_checked_against_the_manifest_beside_it(tmp_path: Path, bundle: Path, encoder: QueryEncoder) -> None:
    bundle = copy(bundle, tmp_path / "b")
    file = bundle / "query_encoder.onnx"
    shutil.copy(file, bundle / "other.onnx")
    assert QueryEncoder.load(file).dim == QueryEncoder.load(bundle / "other.onnx").dim == encoder.dim
    with file.open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(BundleError, match=r"query_encoder\.onnx: damaged: sha256 "):
        QueryEncoder.load(file)


@pytest.mark.parametrize("path", [None, 3, b"out/demo"])
def test_what_is_no_path(path: object) -> None:
    with pytest.raises(BundleError, match="path is .*; a bundle folder or a fused .onnx file is needed"):
        QueryEncoder.load(path)  # type: ignore[arg-type]


def test_options_of_any_whole_number_type_and_none(bundle: Path) -> None:
    encoder = QueryEncoder.load(bundle, dims=np.int64(16), threads=np.int32(1), providers=None)
    assert encoder.encode(["lost parcel"]).shape == (1, 16)
    assert type(encoder.dim) is int


def test_options_that_cannot_be_had(bundle: Path, encoder: QueryEncoder) -> None:
    for dims in (encoder.dim + 1, 0, "16", 16.0, True):
        with pytest.raises(BundleError, match=f"dims is {dims!r}; .* gives 1 to {encoder.dim}, a whole number"):
            QueryEncoder.load(bundle, dims=dims)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"providers is 'CPU', one string; a list is needed: \['CPU'\]"):
        QueryEncoder.load(bundle, providers="CPU")
    for providers in ([], 3):
        with pytest.raises(BundleError, match="this onnxruntime has .*CPUExecutionProvider"):
            QueryEncoder.load(bundle, providers=providers)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="threads is 0; a whole number from 1"):
        QueryEncoder.load(bundle, threads=0)
    with pytest.raises(BundleError, match="this onnxruntime has .*CPUExecutionProvider"):
        QueryEncoder.load(bundle, providers=["NoSuchProvider"])


def test_importing_and_encoding_need_numpy_and_onnxruntime_only(bundle: Path) -> None:
    code = f"""
import sys
from edgeleaf import QueryEncoder
QueryEncoder.load({str(bundle)!r}).encode(["where is my parcel?"])
heavy = {{"torch", "transformers", "sentence_transformers", "onnx", "tokenizers", "typer", "rich", "datasets"}}
heavy |= {{"importlib.metadata", "subprocess"}}  # slow to import, and not needed
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
