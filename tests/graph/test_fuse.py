"""edgeleaf.graph.fuse: one graph from text to unit vectors, with metadata that describes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from edgeleaf.bundle.feed import INPUTS, TEXT, UTF8, Input, feed_of
from edgeleaf.bundle.long_texts import METADATA_LONG_TEXTS
from edgeleaf.errors import ExportError, TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.fuse import encoder_of, fuse, tap, tokenizer_of, with_input
from edgeleaf.graph.tokenizers.spec import reference_tokenizer

WIDTH = 12
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("where", "is", "my", "parcel", "un", "##believ", "##able", "##s", "?", "東")
TEXTS = ["where is my parcel?", "", "unbelievables", "東東 where [SEP] my", "is " * 40, "unknown words"]
TABLE = np.random.default_rng(0).standard_normal((len(SPECIALS) + len(WORDS), WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer_json() -> str:
    vocab = {token: i for i, token in enumerate((*SPECIALS, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(list(SPECIALS))
    text: str = tokenizer.to_str()
    return text


def make_encoder(opset: int = 17, *, batch_axis: str = "batch") -> onnx.ModelProto:
    """Mean of token vectors, through a contrib operator: not of unit norm."""
    graph = GraphBuilder("encoder", opset=opset)
    ids = graph.input("input_ids", TensorProto.INT64, [batch_axis, "sequence"])
    mask = graph.input("attention_mask", TensorProto.INT64, [batch_axis, "sequence"])
    weights = graph.Unsqueeze(graph.Cast(mask, to=TensorProto.FLOAT), np.array([2]))  # [batch, sequence, 1]
    vectors = graph.node("Gelu", graph.Gather(TABLE, ids, axis=0), domain="com.microsoft")[0]
    total = graph.ReduceSum(graph.Mul(vectors, weights), np.array([1]), keepdims=0)
    mean = graph.Div(total, graph.ReduceSum(weights, np.array([1]), keepdims=0))
    graph.output(mean, "sentence_embedding", TensorProto.FLOAT, [batch_axis, WIDTH])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "encoder", graph.inputs, graph.outputs, initializer=list(graph.initializers.values())
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    helper.set_model_props(model, {"made by": "a test"})
    return model


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def embed(model: onnx.ModelProto, texts: list[str]) -> np.ndarray:
    opened = session(model)
    vectors: np.ndarray = opened.run(["embedding"], feed_of(opened)(texts))[0]
    return vectors


def two_steps(tokenizer_json: str, texts: list[str], *, max_length: int, dim: int = WIDTH) -> np.ndarray:
    """What fusing must not change: `tokenizers`, then the encoder, row by row, then the norm."""
    reference, encoder = reference_tokenizer(tokenizer_json, max_length), session(make_encoder())
    rows = []
    for text in texts:
        ids = np.array([reference.encode(text).ids], np.int64)
        row = encoder.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0, :dim]
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


@pytest.mark.parametrize("opset", [16, 17, 18, 20, 21])
def test_fused_equals_tokenizing_and_encoding(tokenizer_json: str, opset: int) -> None:
    model = fuse(make_encoder(opset), tokenizer_json, max_length=16, metadata={})
    vectors = embed(model, TEXTS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(TEXTS), WIDTH))
    np.testing.assert_allclose(vectors, two_steps(tokenizer_json, TEXTS, max_length=16), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(embed(model, [text])[0], vectors[i], atol=1e-6)


def test_prompt_is_inside(tokenizer_json: str) -> None:
    model = fuse(make_encoder(), tokenizer_json, max_length=16, prompt="my un", metadata={})
    texts = ["believable", "", " parcel"]
    expected = two_steps(tokenizer_json, ["my un" + text for text in texts], max_length=16)
    np.testing.assert_allclose(embed(model, texts), expected, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 5, WIDTH])
def test_shorter_vectors_are_cut_and_normalised_again(tokenizer_json: str, dim: int) -> None:
    model = fuse(make_encoder(), tokenizer_json, max_length=16, dim=dim, metadata={})
    np.testing.assert_allclose(embed(model, TEXTS), two_steps(tokenizer_json, TEXTS, max_length=16, dim=dim), atol=1e-6)
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == dim


@pytest.mark.parametrize("dim", [0, -1, WIDTH + 1])
def test_dim_out_of_range(tokenizer_json: str, dim: int) -> None:
    with pytest.raises(ExportError, match=f"dim {dim} is out of range: .* pass 1 to {WIDTH}"):
        fuse(make_encoder(), tokenizer_json, max_length=16, dim=dim, metadata={})


def test_ends_and_metadata(tokenizer_json: str) -> None:
    model = fuse(make_encoder(20), tokenizer_json, max_length=16, metadata={"b": "2", "a": "1"})
    onnx.checker.check_model(model, full_check=False)
    assert [(i.name, i.type.tensor_type.elem_type) for i in model.graph.input] == [("text", TensorProto.STRING)]
    assert [(o.name, o.type.tensor_type.elem_type) for o in model.graph.output] == [("embedding", TensorProto.FLOAT)]
    assert {o.domain: o.version for o in model.opset_import} == {"": 20, "ai.onnx.ml": 3, "com.microsoft": 1}
    assert model.ir_version == 9
    metadata = session(model).get_modelmeta().custom_metadata_map
    assert metadata.pop(METADATA_LONG_TEXTS)
    assert metadata == {"a": "1", "b": "2", "made by": "a test"}


def test_the_encoder_is_left_as_it_is(tokenizer_json: str) -> None:
    encoder = make_encoder()
    before = encoder.SerializeToString()
    fuse(encoder, tokenizer_json, max_length=16, metadata={})
    assert encoder.SerializeToString() == before


def test_text_or_dict_and_other_processes_give_the_same_bytes(tokenizer_json: str, tmp_path: Path) -> None:
    encoder = make_encoder()
    arguments: dict[str, Any] = {"max_length": 16, "prompt": "my ", "metadata": {"b": "2", "a": "1"}}
    model = fuse(encoder, tokenizer_json, **arguments)
    assert fuse(encoder, json.loads(tokenizer_json), **arguments).SerializeToString() == model.SerializeToString()
    onnx.save(encoder, tmp_path / "encoder.onnx")
    (tmp_path / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    program = (
        "import onnx, pathlib; from edgeleaf.graph.fuse import fuse; "
        "text = pathlib.Path('tokenizer.json').read_text(encoding='utf-8'); "
        f"model = fuse(onnx.load('encoder.onnx'), text, **{arguments!r}); "
        "pathlib.Path('fused.onnx').write_bytes(model.SerializeToString())"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env={"PYTHONHASHSEED": "7"})
    assert (tmp_path / "fused.onnx").read_bytes() == model.SerializeToString()


def test_tap_shows_ids_and_mask(tokenizer_json: str) -> None:
    model = fuse(make_encoder(), tokenizer_json, max_length=16, metadata={})
    tapped = tap(model, ["input_ids", "attention_mask"])
    vectors, ids, mask = session(tapped).run(None, {"text": np.array(TEXTS, dtype=object)})
    reference = reference_tokenizer(tokenizer_json, 16)
    assert [row[keep == 1].tolist() for row, keep in zip(ids, mask, strict=True)] == [
        encoding.ids for encoding in reference.encode_batch(TEXTS)
    ]
    np.testing.assert_array_equal(vectors, embed(model, TEXTS))
    assert [output.name for output in model.graph.output] == ["embedding"]  # the model itself is left alone


def test_tap_any_inner_tensor(tokenizer_json: str) -> None:
    model = fuse(make_encoder(), tokenizer_json, max_length=16, metadata={})
    inner = next(node.output[0] for node in model.graph.node if node.op_type == "Gelu")
    tapped = tap(model, [inner, "sentence_embedding", "embedding"])
    found = session(tapped).run([inner, "sentence_embedding"], {"text": np.array(["my parcel"], dtype=object)})
    assert found[0].shape == (1, 4, WIDTH)
    assert found[1].shape == (1, WIDTH)
    with pytest.raises(ExportError, match="'inputids'; pass the name of an inner tensor"):
        tap(model, ["inputids"])


def broken(change: str) -> onnx.ModelProto:
    model = make_encoder(15 if change == "opset" else 17)
    graph = model.graph
    if change == "input":
        graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "sequence"]))
    elif change == "output":
        graph.output[0].name = "last_hidden_state"
    elif change == "width":
        graph.output[0].type.tensor_type.shape.dim[1].dim_param = "width"
    elif change == "type":
        graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "input",
            "the encoder's inputs are input_ids, attention_mask, position_ids; needed: input_ids, attention_mask",
        ),
        ("output", "the encoder's outputs are last_hidden_state; needed: sentence_embedding"),
        ("width", "with a fixed width"),
        ("type", "input input_ids is INT32; needed: INT64"),
        ("opset", "the encoder has opset 15; the tokenizer needs 16"),
    ],
)
def test_an_encoder_of_another_shape_is_named(tokenizer_json: str, change: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        fuse(broken(change), tokenizer_json, max_length=16, metadata={})


@pytest.mark.parametrize("name", ["text", "utf8", "embedding", "tokenizer/Cast_1", "unit_norm/Div_4", "encoder/text"])
def test_an_encoder_may_use_the_fused_graphs_own_names(tokenizer_json: str, name: str) -> None:
    """torch's exporter calls the output of an embedding table ``embedding``."""
    plain, taken = make_encoder(), make_encoder()
    inner = taken.graph.node[0].output[0]
    for node in taken.graph.node:
        node.input[:] = [name if tensor == inner else tensor for tensor in node.input]
        node.output[:] = [name if tensor == inner else tensor for tensor in node.output]
    before = taken.SerializeToString()
    one, other = (fuse(model, tokenizer_json, max_length=16, metadata={}) for model in (plain, taken))
    assert taken.SerializeToString() == before
    np.testing.assert_array_equal(embed(one, TEXTS), embed(other, TEXTS))


def test_a_tokenizer_that_cannot_be_exact_is_refused(tokenizer_json: str) -> None:
    settings = json.loads(tokenizer_json) | {"normalizer": {"type": "Lowercase"}}
    with pytest.raises(TokenizerNotSupported, match="normalizer Lowercase is not supported"):
        fuse(make_encoder(), settings, max_length=16, metadata={})


@pytest.mark.parametrize("takes", INPUTS)
def test_no_texts_give_no_vectors(tokenizer_json: str, takes: Input) -> None:
    """onnxruntime 1.20 to 1.31 ends the whole process if an operator of the tokenizer gets an empty batch."""
    for dim in (None, 3):
        model = fuse(make_encoder(), tokenizer_json, max_length=16, dim=dim, metadata={}, takes=takes)
        found = embed(model, [])
        assert found.shape == (0, dim or WIDTH)
        assert found.dtype == np.float32
    alone = encoder_of(fuse(make_encoder(), tokenizer_json, max_length=16, metadata={}, takes=takes))
    assert [entry.name for entry in alone.graph.input] == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("opset", [16, 17, 18, 21])
def test_bytes_give_the_vectors_of_strings(tokenizer_json: str, opset: int) -> None:
    arguments: dict[str, Any] = {"max_length": 16, "prompt": "my un", "dim": 5}
    text, utf8 = (
        fuse(make_encoder(opset), tokenizer_json, metadata={"a": "1"}, takes=takes, **arguments) for takes in INPUTS
    )
    np.testing.assert_array_equal(embed(utf8, TEXTS), embed(text, TEXTS))
    for one in TEXTS:
        np.testing.assert_array_equal(embed(utf8, [one]), embed(text, [one]))
    assert [(entry.name, entry.type.tensor_type.elem_type) for entry in utf8.graph.input] == [
        ("utf8", TensorProto.UINT8)
    ]
    props = [{prop.key: prop.value for prop in model.metadata_props} for model in (text, utf8)]
    assert props[1] == props[0]
    assert [entry.name for entry in tokenizer_of(utf8).graph.input] == ["utf8"]


def with_types(*, own: bool) -> onnx.ModelProto:
    """An encoder that takes token types as an input, or makes a tensor of that name itself."""
    model = make_encoder()
    nodes = list(model.graph.node)
    reader = next(node for node in nodes if "attention_mask" in node.input)
    reader.input[list(reader.input).index("attention_mask")] = "counted"
    counted = helper.make_node("Sub", ["attention_mask", "token_type_ids"], ["counted"])
    made = [helper.make_node("Sub", ["attention_mask", "attention_mask"], ["token_type_ids"])] if own else []
    if not own:
        model.graph.input.append(
            helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["batch", "sequence"])
        )
    del model.graph.node[:]
    model.graph.node.extend([*made, counted, *nodes])
    return model


@pytest.mark.parametrize("dim", [None, 5])
@pytest.mark.parametrize("kind", ["no token types", "token types", "its own token types"])
def test_another_input_for_the_same_encoder(tokenizer_json: str, kind: str, dim: int | None) -> None:
    """Taking a file apart and putting it together again gives the file that was fused so in the first place."""
    encoder = make_encoder() if kind == "no token types" else with_types(own=kind == "its own token types")
    arguments: dict[str, Any] = {"max_length": 16, "prompt": "my un"}
    text, utf8 = (
        fuse(encoder, tokenizer_json, metadata={"a": "1"}, takes=takes, dim=dim, **arguments) for takes in INPUTS
    )
    made = with_input(text, tokenizer_json, takes=UTF8, **arguments)
    assert made.SerializeToString() == utf8.SerializeToString()
    assert with_input(made, tokenizer_json, takes=TEXT, **arguments).SerializeToString() == text.SerializeToString()


def test_only_a_fused_file_has_an_input_to_change(tokenizer_json: str) -> None:
    with pytest.raises(ExportError, match="it is no fused file"):
        with_input(make_encoder(), tokenizer_json, max_length=16, prompt="", takes=UTF8)
