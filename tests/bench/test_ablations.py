"""The ablations: every arm can be named, wrong names are refused, and what arms are made of does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel

from bench.studies import ablations
from bench.studies.arms import DECAY, OFF_THE_HUB, Averages, LayerPooling
from bench.studies.starts import bert_of
from edgeleaf.training.trainer import Examples


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["bench.studies.ablations", "work", "collection", "-o", "out", *arguments])
    ablations.main()


def test_every_arm_can_be_named_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no such arm: nonsense; there are: base, base, another seed"):
        run(monkeypatch, "--arm", "base, another seed", "--arm", "nonsense")
    starts = [part for name in OFF_THE_HUB for part in ("--start", f"{name}=folder")]
    with pytest.raises(SystemExit, match="'no definitions' needs --definitions FILE"):  # all names were taken
        run(monkeypatch, *starts, *(part for name in ablations.ARMS for part in ("--arm", name)))
    with pytest.raises(SystemExit, match="arms with a form need --forms FOLDER"):
        run(monkeypatch, "--arm", "a quarter claims")
    with pytest.raises(SystemExit, match="'no definitions' needs"):
        run(monkeypatch)  # all arms


def test_a_start_off_the_hub_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="--start e5-small-v2=FOLDER is missing"):
        run(monkeypatch, "--arm", "six of e5-small-v2's layers")


def test_a_quarter_of_the_tokens_is_of_a_form() -> None:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    ordinary = Examples([f"number {row}" for row in range(80)], np.arange(80.0)[:, None])
    form = Examples([f"one of the form {row}" for row in range(80)], 100 + np.arange(80.0)[:, None])
    mixed = ablations.mixed(ordinary, form, tokenizer)
    added = [text for text in mixed.texts if "form" in text]
    assert (len(mixed.texts) - len(added), len(added)) == (60, 8)  # 120 and 40 of 160 words
    assert all(
        float(text.split()[-1]) + 100 * ("form" in text) == row
        for text, (row,) in zip(mixed.texts, mixed.vectors, strict=True)
    )
    with pytest.raises(SystemExit, match="too few texts of a form"):
        ablations.mixed(ordinary, Examples(form.texts[:7], form.vectors[:7]), tokenizer)


def test_averages_are_those_of_the_steps() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    seen: list[float] = []
    with Averages(model, steps=10) as averages:
        for _ in range(10):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
            seen.append(model.weight.item())
    optimizer.step()  # after the run
    moving = seen[0]
    for value in seen[1:]:
        moving = DECAY * moving + (1 - DECAY) * value
    found = averages.states()
    assert found["moving average"]["weight"].item() == pytest.approx(moving, rel=1e-5)
    assert found["mean of five checkpoints"]["weight"].item() == pytest.approx(np.mean(seen[5:]), rel=1e-5)


def test_averages_are_shown_as_arms() -> None:
    part = {"texts": 1, "steps": 1, "seconds": 1, "held_out_cosine": 0.5, "collections": {}}
    results = {"base": {**part, "averages": {"moving average": part}}, "failing": {"failed": "why"}}
    assert list(ablations.with_averages(results)) == ["base", "base: moving average", "failing"]


def test_pooled_layers_are_sentence_transformers_own_modules() -> None:
    states = [torch.randn(2, 3, 4) for _ in range(3)]
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    pooled = LayerPooling(4, ("mean", "cls"), layers=2)
    found = pooled({"all_layer_embeddings": states, "token_embeddings": states[-1], "attention_mask": mask})
    mean = (states[1] + states[2]) / 2
    expected = Pooling(4, ("mean", "cls"))({"token_embeddings": mean, "attention_mask": mask})
    torch.testing.assert_close(found["sentence_embedding"], expected["sentence_embedding"])
    assert [name for name, _ in pooled.named_parameters()] == ["layers.layer_weights"]
    assert pooled.get_embedding_dimension() == 8
    assert SentenceTransformer(modules=[pooled, Dense(8, 2), Normalize()]) is not None


def graph_of(model: BertModel, *, without: str = "") -> Any:
    """Return what torch's exporter makes of a model's weights: matrices are known by the nodes that read them alone."""
    tensors, nodes = [], []
    for name, value in model.state_dict().items():
        if value.ndim == 2 and name.startswith("encoder."):
            if name.removesuffix(".weight") != without:
                tensors.append(numpy_helper.from_array(value.numpy().T.copy(), f"onnx::MatMul_{len(nodes)}"))
                place = "/" + name.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.") + "/MatMul"
                nodes.append(helper.make_node("MatMul", ["x", tensors[-1].name], [place], place))
        else:
            tensors.append(numpy_helper.from_array(value.numpy(), name))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "bert", [x], [x], tensors))


def test_a_start_has_the_weights_of_its_graph(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    model = BertModel(config, add_pooling_layer=False)
    onnx.save(graph_of(model), tmp_path / "model.onnx")
    found = bert_of(onnx.load(tmp_path / "model.onnx"))
    assert (found.config.num_attention_heads, found.config.intermediate_size) == (2, 128)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(SystemExit, match="the graph has no encoder.layer.1.output.dense.weight"):
        bert_of(graph_of(model, without="encoder.layer.1.output.dense"))
