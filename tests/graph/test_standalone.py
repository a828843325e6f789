"""edgeleaf.graph.standalone: `edgeleaf fuse` and `edgeleaf tokenize`, on tiny encoders and the tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeleaf import progress
from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.errors import BundleError, ExportError, GateFailed
from edgeleaf.graph.standalone import fuse_file, tokenize
from tests.graph.encoders import IDS, TEXTS, WIDTH, expected, make_encoder
from tests.graph.tokenizers.pairs import trained


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    tokenizer, encoder = tmp_path / "tokenizer.json", tmp_path / "small-encoder.onnx"
    tokenizer.write_text(json.dumps(trained()), encoding="utf-8")
    onnx.save(make_encoder(), str(encoder))
    return tokenizer, encoder


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


@pytest.mark.slow
def test_a_fused_file_loads_and_encodes(parts: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "new" / "out.onnx"
    made = fuse_file(*parts, output, pooling="mean", max_length=32)
    encoder = QueryEncoder.load(output)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected(trained(), "mean"), atol=1e-6)
    assert (made.parity.mismatches, made.space.dim, encoder.space) == (0, WIDTH, made.space)
    assert made.space.teacher == "small-encoder"
    assert made.tokenizer_mb < made.mb
    assert [path.name for path in output.parent.iterdir()] == ["out.onnx"]


@pytest.mark.usefixtures("fewer_code_points")
@pytest.mark.parametrize("reads", [True, False])
def test_token_types_reach_an_encoder_that_reads_them_or_are_said_to_be_left_out(
    reads: bool, parts: tuple[Path, Path], tmp_path: Path, said: list[str]
) -> None:
    special = {"A": {"id": "A", "ids": [7], "tokens": ["A"]}}
    pieces = [{"SpecialToken": {"id": "A", "type_id": 2}}, {"Sequence": {"id": "A", "type_id": 1}}]
    template = {"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": special}
    settings, output = trained() | {"post_processor": template}, tmp_path / "out.onnx"
    parts[0].write_text(json.dumps(settings), encoding="utf-8")
    onnx.save(make_encoder(types=reads), str(parts[1]))
    fuse_file(*parts, output, pooling="mean", max_length=32)
    vectors = QueryEncoder.load(output).encode(TEXTS)
    np.testing.assert_allclose(vectors, expected(settings, "mean", types=reads), atol=1e-6)
    left_out = "fuse: left out the token types of the tokenizer's template; the encoder has no token_type_ids"
    assert (left_out in said) == (not reads)


@pytest.mark.usefixtures("fewer_code_points")
def test_prompt_window_and_dim(parts: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    fuse_file(*parts, output, pooling="mean", max_length=5, prompt="where is ", dim=3)
    assert QueryEncoder.load(output).encode(["my parcel"]).shape == (1, 3)
    row, long = tokenize(output, ["my", "my " * 9], tokenizer_json=parts[0])
    assert row.tokens == ("[CLS]", "where", "is", "my", "[SEP]")
    assert (row.equal, long.equal, len(long.input_ids)) == (True, True, 5)


@pytest.mark.usefixtures("fewer_code_points")
def test_the_tokenizers_own_window_counts(parts: tuple[Path, Path], tmp_path: Path) -> None:
    tokenizer, encoder = parts
    with pytest.raises(ExportError, match="sets no maximum length for texts; give one with --max-length"):
        fuse_file(tokenizer, encoder, tmp_path / "out.onnx", pooling="mean")
    truncation = {"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    tokenizer.write_text(json.dumps(trained() | {"truncation": truncation}), encoding="utf-8")
    assert fuse_file(tokenizer, encoder, tmp_path / "out.onnx", pooling="mean").max_length == 7


@pytest.mark.usefixtures("fewer_code_points")
def test_tokenizing_without_a_tokenizer_gives_ids(parts: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    fuse_file(*parts, output, pooling="mean", max_length=32)
    (row,) = tokenize(output, ["where"])
    assert (row.tokens, row.equal, len(row.input_ids)) == (None, None, 3)
    assert tokenize(output, []) == []


@pytest.mark.usefixtures("fewer_code_points")
def test_a_file_that_does_not_say_its_window(parts: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    fuse_file(*parts, output, pooling="mean", max_length=32)
    model = onnx.load(str(output))
    del model.metadata_props[:]
    onnx.save(model, str(output))
    with pytest.raises(BundleError, match="its metadata lacks the prompt or the window"):
        tokenize(output, ["where"], tokenizer_json=parts[0])


@pytest.mark.usefixtures("fewer_code_points")
def test_another_tokenizer_shows(parts: tuple[Path, Path], tmp_path: Path) -> None:
    output, other = tmp_path / "out.onnx", tmp_path / "other.json"
    fuse_file(*parts, output, pooling="mean", max_length=32)
    other.write_text(json.dumps(trained(lowercase=False)), encoding="utf-8")
    assert [row.equal for row in tokenize(output, ["where is", "WHERE"], tokenizer_json=other)] == [False, False]


def test_a_bundle_is_tokenized_with_its_own_tokenizer(tiny_bundle: Path) -> None:
    for path in (tiny_bundle, tiny_bundle / "query_encoder.onnx"):
        (row,) = tokenize(path, ["parcel lost"])
        assert row.equal
        assert row.tokens
        assert row.tokens[0] == "[CLS]"


@pytest.mark.usefixtures("fewer_code_points")
def test_a_text_with_other_ids_leaves_no_file(
    parts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is broken here, so the gate can fail only because of the comparison."""
    from edgeleaf.graph import parity

    right = parity.reference_token_ids

    def wrong(tokenizer: object, prompt: str) -> parity.TokenIds:
        ids = right(tokenizer, prompt)
        return lambda texts: [
            [*row, 9] if "short" in text else row for text, row in zip(texts, ids(texts), strict=True)
        ]

    monkeypatch.setattr(parity, "reference_token_ids", wrong)
    with pytest.raises(GateFailed, match="token ids that differ from those of tokenizers, such as 'short again'"):
        fuse_file(*parts, tmp_path / "out.onnx", pooling="mean", max_length=32)
    assert not (tmp_path / "out.onnx").exists()


def test_inputs_that_do_not_fit(parts: tuple[Path, Path], tmp_path: Path) -> None:
    tokenizer, encoder = parts
    output = tmp_path / "out.onnx"
    with pytest.raises(ExportError, match=r"out: give the name of a file that ends in .onnx"):
        fuse_file(tokenizer, encoder, tmp_path / "out")
    with pytest.raises(ExportError, match="is the encoder itself; give another name"):
        fuse_file(tokenizer, encoder, encoder, pooling="mean", max_length=32)
    with pytest.raises(ExportError, match="is a folder; give its tokenizer.json"):
        fuse_file(tmp_path, encoder, output)
    with pytest.raises(ExportError, match="cannot be read .* a tokenizer.json is needed"):
        fuse_file(tmp_path / "none.json", encoder, output)
    with pytest.raises(ExportError, match=r"small-encoder.onnx: tokenizer.json is not JSON|not UTF-8"):
        fuse_file(encoder, encoder, output)
    large = trained()
    large["model"]["vocab"]["beyond"] = IDS
    tokenizer.write_text(json.dumps(large), encoding="utf-8")
    with pytest.raises(ExportError, match=f"ids up to {IDS}, for which the encoder has no vector"):
        fuse_file(tokenizer, encoder, output, pooling="mean", max_length=32)
    with pytest.raises(BundleError, match="a fused query encoder is needed"):
        tokenize(encoder, ["x"])
    with pytest.raises(BundleError, match=r"tokenizer.json: not an ONNX model that can be read"):
        tokenize(tokenizer, ["x"])
    assert not output.exists()


@pytest.mark.usefixtures("fewer_code_points")
def test_a_window_that_is_wider_than_the_encoders(parts: tuple[Path, Path], tmp_path: Path) -> None:
    """An encoder with 16 position embeddings."""
    from edgeleaf.graph.builder import GraphBuilder

    graph = GraphBuilder("encoder")
    for name in ("input_ids", "attention_mask"):
        graph.input(name, onnx.TensorProto.INT64, ["batch", "sequence"])
    length = graph.Slice(graph.Shape("input_ids"), np.array([1]), np.array([2]))
    places = graph.Range(np.int64(0), graph.Squeeze(length), np.int64(1))
    tokens = graph.Gather(np.ones((IDS, WIDTH), np.float32), "input_ids", axis=0)
    vectors = graph.Add(tokens, graph.Gather(np.ones((16, WIDTH), np.float32), places, axis=0))
    graph.output(vectors, "last_hidden_state", onnx.TensorProto.FLOAT, ["batch", "sequence", WIDTH])
    onnx.save(graph.model(), str(parts[1]))
    with pytest.raises(ExportError, match="the encoder fails on 17 tokens; pass a smaller --max-length"):
        fuse_file(*parts, tmp_path / "out.onnx", pooling="mean", max_length=17)
    fuse_file(*parts, tmp_path / "out.onnx", pooling="mean", max_length=16)
