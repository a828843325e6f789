"""Every architecture that is known to export: exact in float32; in int8 the same vector in any batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeleaf.bundle.session import session
from edgeleaf.errors import ExportError, ModelError
from edgeleaf.graph.export import export_onnx, validate
from edgeleaf.graph.exporters import KNOWN_ENCODERS
from edgeleaf.graph.fuse import fuse
from edgeleaf.graph.quantization.layers import IN_DOUBLE, SAME_EVERYWHERE, Form, LayerPlan
from edgeleaf.graph.quantization.parts import ATTENTION, DOMAIN, RMS_NORM, SILU, with_parts
from edgeleaf.graph.quantization.quantize import planned, quantize
from edgeleaf.models.loading import load_sentence_transformer, positions_of
from tests.conftest import made_once, tiny_texts
from tests.graph.architectures import ARCHITECTURES, WINDOW, write_architecture

TEXTS = tiny_texts(300, low=1, high=12, seed=21)
PARTS = {
    "roberta": {},
    "xlm-roberta": {},
    "mpnet": {ATTENTION: 2},
    "distilbert": {},
    "albert": {},
    "modernbert": {ATTENTION: 4},
    "qwen2": {RMS_NORM: 7, ATTENTION: 3, SILU: 3},
    "qwen3": {RMS_NORM: 13, ATTENTION: 3, SILU: 3},
    "gemma3": {RMS_NORM: 19, ATTENTION: 3},
    "mistral": {RMS_NORM: 7, ATTENTION: 3, SILU: 3},
}
LAYERS = {
    "roberta": (10, 2),
    "xlm-roberta": (10, 2),
    "mpnet": (10, 2),
    "distilbert": (10, 2),
    "albert": (8, 5),
    "modernbert": (12, 4),
    "qwen2": (18, 3),
    "qwen3": (18, 3),
    "gemma3": (18, 5),
    "mistral": (18, 3),
}
"""Linear layers with fixed scales, and with a scale per token or text."""
WHOLE = frozenset({"FusedMatMul", "MatMulIntegerToFloat", "QLinearSigmoid", "QuantizeLinear"})
"""Operators that compute with whole numbers only."""


class Exported(NamedTuple):
    """A tiny model: folder, torch model, float32 and int8 graphs, token ids of the texts."""

    folder: Path
    torch_model: Any
    float32: onnx.ModelProto
    int8: onnx.ModelProto
    counts: tuple[int, int]
    ids: list[list[int]]


SLOW = frozenset({"qwen3", "gemma3", "mistral"})
"""Architectures that only ``make test-slow`` builds; what is special about most of them, Qwen2 has too."""


def architectures() -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ARCHITECTURES]


@pytest.fixture(scope="module", params=architectures())
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = made_once(
        tmp_path_factory, f"architecture-{request.param}", lambda new: write_architecture(new, request.param)
    )
    torch_model = load_sentence_transformer(folder / "model").to("cpu")
    model = export_onnx(folder / "model")
    ids = [torch_model.tokenizer(text, truncation=True, max_length=WINDOW)["input_ids"] for text in TEXTS]
    quantized = quantize(model, ids[:200])
    counts = (quantized.fixed, quantized.running)
    return Exported(folder / "model", torch_model, model, quantized.model, counts, ids)


def vectors(model: onnx.ModelProto, ids: list[list[int]], *, pad: int = 0, pad_id: int = 1) -> np.ndarray:
    """Encode texts in one batch, padded on the right, with ``pad`` more padding tokens than they need."""
    length = max(map(len, ids)) + pad
    feed = np.full((len(ids), length), pad_id), np.zeros((len(ids), length), np.int64)
    for row, text in enumerate(ids):
        feed[0][row, : len(text)], feed[1][row, : len(text)] = text, 1
    opened = session(model.SerializeToString(), threads=1)
    return np.asarray(opened.run(None, dict(zip(("input_ids", "attention_mask"), feed, strict=True)))[0])


def name_of(exported: Exported) -> str:
    return exported.folder.parent.name.removeprefix("architecture-")


def test_float32_equals_torch(exported: Exported) -> None:
    assert validate(exported.float32, exported.torch_model, TEXTS[:6]) < 1e-5


def test_parts_are_recognised_and_mean_the_same(exported: Exported) -> None:
    parts = with_parts(exported.float32)
    found = Counter(node.op_type for node in parts.graph.node if node.domain == DOMAIN)
    assert found == PARTS[name_of(exported)]
    onnx.checker.check_model(parts)
    np.testing.assert_allclose(vectors(parts, exported.ids[:9]), vectors(exported.float32, exported.ids[:9]), atol=1e-5)


def test_int8_is_close_and_has_every_layer(exported: Exported) -> None:
    assert exported.counts == LAYERS[name_of(exported)]
    found, expected = ([vectors(m, [i])[0] for i in exported.ids[200:]] for m in (exported.int8, exported.float32))
    cosines = np.sum(np.array(found) * np.array(expected), axis=1)
    assert cosines.mean() > 0.995  # random layers amplify errors more than trained ones
    assert cosines.min() > 0.97
    floats = [t for t in exported.int8.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert all(np.prod(t.dims) < 1024 for t in floats)


def test_a_text_does_not_feel_its_neighbours_or_its_padding(exported: Exported) -> None:
    ids = exported.ids[200:216]
    together = vectors(exported.int8, ids)
    assert np.isfinite(together).all()
    for text, row in zip(ids, together, strict=True):
        np.testing.assert_array_equal(vectors(exported.int8, [text])[0], row)
        np.testing.assert_array_equal(vectors(exported.int8, [text], pad=17)[0], row)


def test_only_operations_that_come_out_the_same_everywhere(exported: Exported) -> None:
    graph = exported.int8.graph
    maker = {name: node for node in graph.node for name in node.output}
    wide: set[str] = set()
    for node in graph.node:
        if node.op_type == "Cast" and helper.get_attribute_value(node.attribute[0]) == TensorProto.DOUBLE:
            wide |= set(node.output)
        elif node.op_type != "Cast" and wide & set(node.input):
            wide |= set(node.output)
            assert node.op_type in IN_DOUBLE | SAME_EVERYWHERE, node
        elif node.op_type in ("MatMul", "ReduceSum"):  # shares of an attention, and their sums
            before = maker[node.input[0]].op_type
            assert before == {"MatMul": "Round", "ReduceSum": "Cast"}[node.op_type], node
        elif node.op_type in ("Cos", "Sin", "Softmax", "Sigmoid", "Log", "Exp", "Pow", "Reciprocal", "Tanh", "Erf"):
            pytest.fail(str(node))
        else:
            of_ids = node.op_type in INTEGER and node.op_type not in SAME_EVERYWHERE
            assert node.op_type in SAME_EVERYWHERE | WHOLE or of_ids, node


INTEGER = frozenset("And ArgMax CumSum Equal Greater GreaterOrEqual Less LessOrEqual Not Or Shape".split())
"""Operators on token ids, masks and shapes."""


def test_sums_of_whole_numbers_stay_exact_for_the_calibration_texts(exported: Exported) -> None:
    """Queries and keys of any attention, as whole numbers, have products below 2**24."""
    from edgeleaf.graph.quantization.calibration import _session

    products = [n for n in exported.int8.graph.node if n.op_type == "MatMul" and n.name.startswith("int8/")]
    if not products:
        pytest.skip("all attentions are of ONNX Runtime's own kind")
    scores = [n for n in exported.int8.graph.node if n.op_type == "FusedMatMul"]
    opened = _session(exported.int8, [n.output[0] for n in (*scores, *products)])
    for ids in exported.ids[:20]:
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        for found in opened.run(None, feed):
            assert np.abs(found).max() < 2**24
            np.testing.assert_array_equal(found, np.round(found))


def test_the_fused_file_gives_torchs_vectors(exported: Exported) -> None:
    settings = (exported.folder / "tokenizer.json").read_text(encoding="utf-8")
    fused = fuse(exported.float32, settings, max_length=WINDOW, metadata={})
    texts = [*TEXTS[:5], "e\u0301 東京 " + "long " * 60, ""]
    found = session(fused.SerializeToString(), threads=1).run(None, {"text": np.array(texts, object)})[0]
    np.testing.assert_allclose(found, exported.torch_model.encode(texts), atol=1e-4)


def test_a_window_leaves_out_the_positions_of_padding(exported: Exported) -> None:
    if name_of(exported) not in ("roberta", "xlm-roberta", "mpnet"):
        pytest.skip("its positions have no offset")
    assert positions_of(exported.torch_model[0].auto_model) == 64  # of 66
    with pytest.raises(ModelError, match="max_length is 65; model has positions for 64 tokens"):
        load_sentence_transformer(exported.folder, max_length=65)
    longest = load_sentence_transformer(exported.folder, max_length=64)
    assert np.isfinite(longest.encode("long " * 99)).all()


def test_all_known_architectures_are_tried_here() -> None:
    import transformers

    kinds = {getattr(transformers, made.config).model_type for made in ARCHITECTURES.values()}
    assert kinds | {"bert"} == KNOWN_ENCODERS


def outlying(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """Return a model with one large channel behind every gate."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    plan = LayerPlan(model)
    gates = [n for n in plan.model.graph.node if n.op_type == "Mul" and _multiplies_a_gate(plan, n)]
    assert gates
    weights = {tensor.name: tensor for tensor in changed.graph.initializer}
    for gate in gates:
        source = next(plan.linears[name] for name in gate.input if name in plan.linears)
        after = plan.readers[gate.output[0]][0]
        for name, axis in ((source.input[1], 1), (after.input[1], 0)):
            values = numpy_helper.to_array(weights[name]).copy()
            place = (slice(None), 3) if axis else (3, slice(None))
            values[place] *= factor if axis else 1 / factor
            weights[name].CopyFrom(numpy_helper.from_array(values, name))
    return changed


def _multiplies_a_gate(plan: LayerPlan, node: onnx.NodeProto) -> bool:
    return any(name in plan.maker and plan.form(plan.maker[name]) is Form.SILU for name in node.input)


def test_gates_with_a_large_channel(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    if name_of(exported) != "qwen2":
        pytest.skip("one architecture with SiLU gates is enough")
    model = outlying(exported.float32, 300.0)

    def lost() -> float:
        quantized = quantize(model, exported.ids[:200]).model
        pairs = [(vectors(quantized, [i])[0], vectors(model, [i])[0]) for i in exported.ids[200:240]]
        return float(np.mean([1 - one @ other for one, other in pairs]))

    smoothed = lost()
    monkeypatch.setattr("edgeleaf.graph.quantization.scales.Scales._of_gate", lambda *_: None)
    assert smoothed < 0.2 * lost()


def test_a_part_without_an_exact_form_is_refused_by_name(exported: Exported) -> None:
    if name_of(exported) != "roberta":
        pytest.skip("one architecture is enough")
    changed = onnx.ModelProto()
    changed.CopyFrom(exported.float32)
    gelu = next(node for node in changed.graph.node if node.op_type == "BiasGelu")
    gelu.CopyFrom(helper.make_node("Softplus", [gelu.input[0]], list(gelu.output)))
    with pytest.raises(ExportError, match="no form of Softplus with equal .*; use int8-weights, int4-weights, fp16 or"):
        planned(changed)
