"""edgeleaf.graph.fuse with every kind of tokenizer: the fused file gives what `tokenizers` and the encoder give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeleaf.bundle.feed import INPUTS, Input, feed_of
from edgeleaf.bundle.session import ROW_LENGTH
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.fuse import encoder_of, fuse, tap, tokenizer_of, with_input
from edgeleaf.graph.standalone import fuse_file
from tests.graph.encoders import IDS, TABLE, WIDTH, make_encoder
from tests.graph.test_fuse import session
from tests.graph.tokenizers.pairs import Pair
from tests.graph.tokenizers.trained import byte_level, unigram, with_bytes

FAMILIES: dict[str, Callable[[], dict[str, Any]]] = {
    "byte-level BPE": lambda: byte_level(regex="qwen", nfc=True),
    "BPE with byte fallback": with_bytes,
    "Unigram": unigram,
}
TEXTS = ["where is the parcel?", "", "東京で e\u0301", "a" * 300, " "]


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> dict[str, Any]:
    return FAMILIES[request.param]()


def expected(tokenizer: dict[str, Any], texts: list[str], prompt: str) -> np.ndarray:
    reference = Pair(tokenizer, max_length=32).reference
    rows = [TABLE[reference.encode(prompt + text).ids].mean(0) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows])


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_fused_equals_tokenizing_and_encoding(tokenizer: dict[str, Any], opset: int) -> None:
    encoder = make_encoder(opset=opset, pooled=True, output="sentence_embedding")
    for takes in INPUTS:
        model = fuse(encoder, tokenizer, max_length=32, prompt="query: ", metadata={"a": "1"}, takes=takes)
        opened = session(model)
        found = opened.run(["embedding"], feed_of(opened)(TEXTS))[0]
        np.testing.assert_allclose(found, expected(tokenizer, TEXTS, "query: "), atol=1e-6)
        assert opened.run(["embedding"], feed_of(opened)([]))[0].shape == (0, WIDTH)
        assert {o.domain: o.version for o in model.opset_import}[""] == max(opset, 18)


def test_the_parts_come_out_again(tokenizer: dict[str, Any]) -> None:
    encoder = make_encoder(opset=18, pooled=True, output="sentence_embedding", contrib=True)
    models: dict[Input, onnx.ModelProto] = {
        takes: fuse(encoder, tokenizer, max_length=16, metadata={}, takes=takes) for takes in INPUTS
    }
    made = with_input(models["text"], tokenizer, max_length=16, prompt="", takes="utf8")
    assert made.SerializeToString() == models["utf8"].SerializeToString()
    opened = session(tap(models["text"], ["input_ids", ROW_LENGTH]))
    ids, lengths = opened.run(["input_ids", ROW_LENGTH], feed_of(opened)(TEXTS))
    reference = Pair(tokenizer, max_length=1 << 20).reference
    whole = [len(reference.encode(text).ids) for text in TEXTS]
    suffix = whole[1] - int(lengths[1, 0]) + 1
    assert lengths[:, 0].tolist() == [count - suffix + 1 for count in whole]
    assert ids.shape[1] == 16
    assert session(tokenizer_of(models["text"])).get_outputs()[0].name == "input_ids"
    assert [entry.name for entry in encoder_of(models["text"]).graph.input] == ["input_ids", "attention_mask"]


@pytest.mark.slow
@pytest.mark.parametrize("side", ["Left", "Right"])
def test_long_texts(tokenizer: dict[str, Any], side: str) -> None:
    """Longer than what is looked at whole, between short ones, and with words that the window cuts."""
    truncation = {"direction": side, "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    long = [" ".join(f"{word} {n}" for n in range(3000)) for word in ("parcel", "<s>", "東京")]
    for takes in INPUTS:
        pair = Pair(tokenizer | {"truncation": truncation}, max_length=24, prompt="query: ", takes=takes)
        pair.check(["short", long[0], "", long[1] + "x" * 500, "y" * 6000 + " z", long[2], " " * 5000 + "a"])


@pytest.mark.usefixtures("fewer_code_points")
def test_a_file_of_every_family(tokenizer: dict[str, Any], tmp_path: Path) -> None:
    """What ``edgeleaf fuse`` does, its own comparison with `tokenizers` included."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    onnx.save(make_encoder(), str(tmp_path / "encoder.onnx"))
    assert max(Pair(tokenizer).reference.get_vocab().values()) < IDS
    made = fuse_file(
        tmp_path / "tokenizer.json", tmp_path / "encoder.onnx", tmp_path / "out.onnx", pooling="mean", max_length=32
    )
    assert made.path.is_file()
    refused = tokenizer | {"normalizer": {"type": "Lowercase"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(refused), encoding="utf-8")
    with pytest.raises(TokenizerNotSupported, match="normalizer Lowercase is not supported"):
        fuse_file(
            tmp_path / "tokenizer.json", tmp_path / "encoder.onnx", tmp_path / "no.onnx", pooling="mean", max_length=32
        )
    assert not (tmp_path / "no.onnx").exists()
