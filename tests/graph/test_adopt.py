"""edgeleaf.graph.adopt: encoders of several forms are converted to one, and their vectors do not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeleaf.errors import ExportError
from edgeleaf.graph.adopt import POOLINGS, adopt, load_model
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.vectors import unit_rows
from tests.graph.encoders import TABLE, TEXTS, WIDTH, embed, expected, make_encoder
from tests.graph.tokenizers.pairs import trained


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("opset", [11, 12, 13, 16, 17, 18, 21])
def test_pooling(pooling: str, opset: int) -> None:
    adopted, _ = adopt(make_encoder(opset=opset), pooling=pooling)
    np.testing.assert_allclose(embed(adopted, trained()), expected(trained(), pooling), atol=1e-6)


@pytest.mark.parametrize("output", ["sentence_embedding", "pooled", "text_embeds"])
@pytest.mark.parametrize("opset", [11, 17])
def test_the_pooling_is_inside(output: str, opset: int) -> None:
    adopted, _ = adopt(make_encoder(output=output, pooled=True, opset=opset))
    np.testing.assert_allclose(embed(adopted, trained()), expected(trained(), "mean"), atol=1e-6)


def test_token_vectors_under_the_name_of_the_pooled_one() -> None:
    adopted, _ = adopt(make_encoder(output="sentence_embedding"), pooling="cls")
    np.testing.assert_allclose(embed(adopted, trained()), expected(trained(), "cls"), atol=1e-6)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_precisions(kind: int) -> None:
    adopted, _ = adopt(make_encoder(elem_type=kind), pooling="mean")
    np.testing.assert_allclose(embed(adopted, trained()), expected(trained(), "mean"), atol=1e-2)


def test_narrow_ids() -> None:
    adopted, _ = adopt(make_encoder(input_type=TensorProto.INT32, types=True), pooling="mean")
    np.testing.assert_allclose(embed(adopted, trained()), expected(trained(), "mean", types=True), atol=1e-6)


def test_token_types_are_the_templates() -> None:
    special = {"A": {"id": "A", "ids": [7], "tokens": ["A"]}}
    pieces = [{"SpecialToken": {"id": "A", "type_id": 2}}, {"Sequence": {"id": "A", "type_id": 1}}]
    template = {"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": special}
    tokenizer = trained() | {"post_processor": template}
    adopted, _ = adopt(make_encoder(types=True), pooling="mean")
    np.testing.assert_allclose(embed(adopted, tokenizer), expected(tokenizer, "mean", types=True), atol=1e-6)


@pytest.mark.parametrize("opset", [12, 17])
def test_contrib_operators_survive(opset: int) -> None:
    adopted, _ = adopt(make_encoder(contrib=True, opset=opset), pooling="mean")
    assert "Gelu" in {node.op_type for node in adopted.graph.node}
    assert embed(adopted, trained()).shape == (len(TEXTS), WIDTH)


def test_the_original_is_left_alone() -> None:
    encoder = make_encoder(opset=12)
    before = encoder.SerializeToString()
    adopt(encoder, pooling="mean")
    assert encoder.SerializeToString() == before


@pytest.mark.parametrize(
    ("encoder", "pooling", "message"),
    [
        ({}, None, r"gives token vectors \(last_hidden_state \[2, 3, 6\].*--pooling mean, cls, last, max"),
        ({}, "median", "pooling 'median' is not known; pass one of mean, cls, last, max"),
        ({"pooled": True}, "mean", "no token vectors to pool; leave --pooling out"),
        ({"extra": "position_ids"}, "mean", "inputs are input_ids, attention_mask, position_ids; needed: input_ids"),
        ({"input_type": TensorProto.FLOAT}, "mean", "input input_ids is FLOAT; needed: INT64 or INT32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(encoder: dict[str, Any], pooling: str | None, message: str) -> None:
    if encoder.get("input_type") == TensorProto.FLOAT:
        model = make_encoder()
        for value in model.graph.input:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    else:
        model = make_encoder(**encoder)
    with pytest.raises(ExportError, match=message):
        adopt(model, pooling=pooling)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such file"):
        load_model(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(ExportError, match="not an ONNX model"):
        load_model(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ExportError, match="holds no graph"):
        load_model(tmp_path / "empty.onnx")


def test_an_encoder_that_does_not_run() -> None:
    model = make_encoder()
    model.graph.node[0].input[0] = model.graph.node[0].input[1]  # gathers from the ids instead of the table
    with pytest.raises(ExportError, match="onnxruntime cannot run the encoder on two texts of three tokens: "):
        adopt(model, pooling="mean")


def test_an_encoder_that_works_with_one_text_only() -> None:
    graph = GraphBuilder("encoder")
    for name in ("input_ids", "attention_mask"):
        graph.input(name, TensorProto.INT64, ["batch", "sequence"])
    fixed = graph.Reshape(graph.Gather(TABLE, "input_ids", axis=0), np.array([1, -1, WIDTH]))
    graph.output(fixed, "last_hidden_state", TensorProto.FLOAT, [1, "sequence", WIDTH])
    with pytest.raises(ExportError, match=r"no token vectors to pool|outputs are last_hidden_state \[1, 6, 6\]"):
        adopt(graph.model(), pooling="mean")


def test_an_opset_that_cannot_be_raised() -> None:
    model = make_encoder(opset=12)
    model.graph.node.append(helper.make_node("NoSuchOperator", ["input_ids"], ["nothing"]))
    with pytest.raises(ExportError, match="has opset 12, the tokenizer needs 16, and onnx cannot convert it: "):
        adopt(model, pooling="mean")


def test_a_graph_without_a_name_gets_one() -> None:
    model = make_encoder()
    model.graph.name = ""
    assert adopt(model, pooling="mean")[0].graph.name == "encoder"


def layered(names: list[str]) -> Any:
    """An encoder that gives token vectors under several names, each twice the one before."""
    model = make_encoder(output="tokens")
    last = model.graph.output[0].name
    kept = helper.make_tensor_value_info
    del model.graph.output[:]
    for n, name in enumerate(names):
        model.graph.node.append(helper.make_node("Add", [last, last], [name]))
        model.graph.output.append(kept(name, TensorProto.FLOAT, ["batch", "sequence", WIDTH]))
        last = name if n % 2 else last
    return model


def test_of_numbered_layers_the_last_is_pooled_and_named() -> None:
    names = [f"hidden_states.{n}" for n in (0, 1, 2, 10)]
    with pytest.raises(ExportError, match=r"several token vectors .*hidden_states\.10.* --encoder-output NAME"):
        adopt(layered(names), pooling="mean")  # layers are missing between 2 and 10
    _, taken = adopt(layered(names[:3]), pooling="mean")
    assert taken == "hidden_states.2"
    _, taken = adopt(layered(names), pooling="mean", output="hidden_states.1")
    assert taken == "hidden_states.1"


def test_unnamed_layers_are_asked_for() -> None:
    with pytest.raises(ExportError, match=r"several token vectors \(first .*second .*choose one: --encoder-output"):
        adopt(layered(["first", "second"]), pooling="mean")
    with pytest.raises(ExportError, match=r"output 'third' does not give token vectors to pool; its outputs are first"):
        adopt(layered(["first", "second"]), pooling="mean", output="third")
    _, taken = adopt(layered(["first", "last_hidden_state"]), pooling="mean")
    assert taken == "last_hidden_state"


TWO = np.linspace(1, 2, WIDTH, dtype=np.float32)


def test_what_only_a_branch_reads_stays() -> None:
    """Only the branches of an ``If`` read the tensor, the weight and the input."""
    model = make_encoder()
    graph, tokens = model.graph, model.graph.output[0].name
    vectors = helper.make_tensor_value_info("made", TensorProto.FLOAT, ["batch", "sequence", WIDTH])

    def branch(factor: str) -> Any:
        return helper.make_graph([helper.make_node("Mul", [tokens, factor], ["made"])], factor, [], [vectors])

    graph.initializer.extend(
        helper.make_tensor(name, TensorProto.FLOAT, [WIDTH], values)
        for name, values in (("two", TWO), ("three", [1] * WIDTH))
    )
    graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    graph.node.append(
        helper.make_node("If", ["yes"], ["chosen"], then_branch=branch("two"), else_branch=branch("three"))
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["batch", "sequence", WIDTH]))
    adopted, taken = adopt(model, pooling="mean")
    assert taken == "chosen"
    right = unit_rows(expected(trained(), "mean") * TWO)
    np.testing.assert_allclose(embed(adopted, trained()), right, atol=1e-5)
