"""edgeleaf.graph.parity: a wrong tokenizer is caught, with the text and both lists of ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import tokenizers

from edgeleaf.errors import BundleError
from edgeleaf.graph import parity
from edgeleaf.graph.hard_texts import CODE_POINT_TEXTS, HARD_TEXTS, code_point_texts
from edgeleaf.graph.parity import Mismatch, reference_token_ids, token_parity
from tests.latency.tiny import WORDS, tiny_fused


def by(cut: Callable[[str], list[int]]) -> parity.TokenIds:
    return lambda texts: [cut(text) for text in texts]


def characters(text: str) -> list[int]:
    return [101, *map(ord, text), 102]


def test_equal_tokenizers_have_parity_on_hard_texts_alone_and_in_a_batch() -> None:
    found = token_parity(by(characters), by(characters), texts=["one", "two"])
    assert (found.mismatches, found.examples, found.code_points) == (0, (), False)
    assert found.tried == 2 * len(HARD_TEXTS) + 2


def test_a_tokenizer_that_forgets_to_lower_case_is_caught() -> None:
    found = token_parity(by(characters), by(lambda text: characters(text.lower())), texts=["Abc", "abc"])
    assert found.mismatches > 0
    expected, fused = tuple(characters("upper lower mixed")), tuple(characters("UPPER lower MiXeD"))
    assert Mismatch("UPPER lower MiXeD", expected, fused) in found.examples
    assert len(found.examples) <= parity.EXAMPLES


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda text: characters(text[:2000]), id="truncates earlier"),
        pytest.param(lambda text: characters(text.replace("[SEP]", "sep")), id="literal [SEP]"),
        pytest.param(lambda text: characters(text.split("\0")[0]), id="stops at NUL"),
        pytest.param(lambda text: characters(text) if text.strip() else [], id="nothing for a blank"),
        pytest.param(lambda text: [1] if "a" * 100 in text and "a" * 101 not in text else characters(text), id="100"),
        pytest.param(lambda text: [1] if "a" * 101 in text and "a" * 102 not in text else characters(text), id="101"),
    ],
)
def test_hard_texts_catch_the_usual_mistakes_without_any_data(wrong: Callable[[str], list[int]]) -> None:
    assert token_parity(by(wrong), by(characters)).mismatches > 0


def test_a_mistake_that_needs_neighbours_is_caught() -> None:
    def only_in_batches(texts: Sequence[str]) -> list[list[int]]:
        return [characters(text) if len(texts) == 1 else [0] for text in texts]

    found = token_parity(only_in_batches, by(characters))
    assert found.mismatches == len(HARD_TEXTS)


def test_the_sweep_tries_every_code_point_once() -> None:
    alone = [text[i + 1] for text in code_point_texts() for i in range(0, len(text), 6)]
    inside = [text[i + 4] for text in code_point_texts() for i in range(0, len(text), 6)]
    assert alone == inside
    assert len(alone) == len(set(alone)) == 0x110000 - 0x800
    assert sum(1 for _ in code_point_texts()) == CODE_POINT_TEXTS


def test_a_code_point_that_is_cut_differently_is_found() -> None:
    found = token_parity(
        by(lambda text: [1]), by(lambda text: [1 + (chr(64) in text and len(text) == 5)]), code_points=True
    )
    assert (found.code_points, found.mismatches) == (True, 1)


def test_the_prompt_goes_before_each_text() -> None:
    vocabulary = {"[UNK]": 0, "query:": 1, "red": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    assert reference_token_ids(tokenizer, "query: ")(["red", ""]) == [[1, 2], [1]]


def test_ids_are_tapped_from_inside_the_fused_file(tmp_path: Path) -> None:
    file = tmp_path / "query_encoder.onnx"
    onnx.save(tiny_fused(np.eye(len(WORDS))), str(file))
    token_ids = parity.fused_token_ids(file)
    assert token_ids(["red green", "nonsense one two three", ""]) == [[2, 3], [1, 5, 6, 7], []]


def test_a_file_without_inner_tensors_is_an_error(tmp_path: Path) -> None:
    from edgeleaf.graph.builder import GraphBuilder

    g = GraphBuilder("other")
    x = g.input("x", onnx.TensorProto.FLOAT, ["n"])
    g.output(g.Mul(x, np.float32(2)), "y", onnx.TensorProto.FLOAT, ["n"])
    onnx.save(g.model(), str(tmp_path / "other.onnx"))
    with pytest.raises(BundleError, match="no inner tensors input_ids and attention_mask"):
        parity.fused_token_ids(tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="missing"):
        parity.fused_token_ids(tmp_path / "absent.onnx")
