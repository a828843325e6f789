"""onnxruntime-extensions' tokenizers, which others fuse into graphs, to measure beside ours.

They are custom operators, so their library has to be shipped and registered wherever the file runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf import progress
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import HELD_OUT
from edgeleaf.texts.corpus import read_texts

TOKENIZER, EXTENSIONS = "tokenizer", "extensions"
EVERY_CODE_POINT = 50


def bert_tokenizer(tokenizer_json: str, notes: list[str]) -> Callable[[str], list[int]] | None:
    """Return onnxruntime-extensions' BertTokenizer with this vocabulary; None, with a note, if it is not available."""
    try:
        import onnxruntime_extensions
    except ImportError:
        notes.append("onnxruntime-extensions is not measured: pip install onnxruntime-extensions")
        return None
    model = json.loads(tokenizer_json)["model"]
    if "[CLS]" not in model["vocab"] or sorted(model["vocab"].values()) != list(range(len(model["vocab"]))):
        notes.append("onnxruntime-extensions is not measured: its BertTokenizer has BERT's special tokens built in")
        return None
    opened = opened_with_extensions(bert_tokenizer_graph(tokenizer_json).SerializeToString())
    notes.append(f"onnxruntime-extensions {onnxruntime_extensions.__version__}: ids only, not cut to the window")

    def token_ids(text: str) -> list[int]:
        ids: list[int] = opened.run(["input_ids"], {"text": np.array([text], dtype=object)})[0].tolist()
        return ids

    return token_ids


def bert_tokenizer_graph(tokenizer_json: str) -> Any:
    """Return a graph of one BertTokenizer: ``text``, string [1], to input_ids, token_type_ids, attention_mask."""
    from onnx import TensorProto, helper

    settings = json.loads(tokenizer_json)
    normalizer, model = settings.get("normalizer") or {}, settings["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
    strips = normalizer.get("strip_accents")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    node = helper.make_node(
        "BertTokenizer",
        ["text"],
        names,
        domain="ai.onnx.contrib",
        vocab_file="\n".join(vocabulary),
        do_lower_case=int(normalizer.get("lowercase", False)),
        strip_accents=int(normalizer.get("lowercase", False) if strips is None else strips),
        tokenize_chinese_chars=int(normalizer.get("handle_chinese_chars", False)),
        suffix_indicator=model["continuing_subword_prefix"],
    )
    graph = helper.make_graph(
        [node],
        "peer",
        [helper.make_tensor_value_info("text", TensorProto.STRING, [1])],
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["sequence"]) for name in names],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def json_tokenizer_graph(tokenizer_json: str, tokenizer_class: str) -> Any:
    """Return a graph of one HfJsonTokenizer, for BPE and Unigram: ``text``, string [1], to ids, int64 of any shape."""
    from onnx import TensorProto, helper

    node = helper.make_node(
        "HfJsonTokenizer",
        ["text"],
        ["ids"],
        domain="ai.onnx.contrib",
        tokenizer_config=json.dumps({"tokenizer_class": tokenizer_class}),
        tokenizer_vocab=tokenizer_json,
    )
    text = helper.make_tensor_value_info("text", TensorProto.STRING, [1])
    graph = helper.make_graph([node], "peer", [text], [helper.make_tensor_value_info("ids", TensorProto.INT64, None)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def opened_with_extensions(graph: bytes) -> Any:
    """Return a session, on one thread, of a graph that holds operators of onnxruntime-extensions."""
    import onnxruntime as ort
    import onnxruntime_extensions

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def mismatches(
    bundle: Path,
    token_ids: Callable[[str], tuple[np.ndarray, np.ndarray]],
    peer: Callable[[str], list[int]] | None,
    cut: Any,
    uncut: Any,
    prompt: str,
) -> dict[str, dict[str, int]]:
    """Count by set the texts whose ids differ from those of `tokenizers`: tried, and different per tokenizer."""
    sets = _parity_sets(bundle)
    found: dict[str, dict[str, int]] = {}
    with progress.bar("bench: token parity", sum(map(len, sets.values()))) as advance:
        for name, texts in sets.items():
            counts = {"texts": len(texts), TOKENIZER: 0} | ({} if peer is None else {EXTENSIONS: 0})
            for text in texts:
                counts[TOKENIZER] += token_ids(text)[0][0].tolist() != cut.encode(prompt + text).ids
                if peer is not None:
                    counts[EXTENSIONS] += peer(prompt + text) != uncut.encode(prompt + text).ids
                advance(1)
            found[name] = counts
    return found


def _parity_sets(bundle: Path) -> dict[str, list[str]]:
    """Return the bundle's own texts, hard ones, and every 50th code point alone and inside a word."""
    from edgeleaf.graph.hard_texts import HARD_TEXTS, code_point_texts

    held_out = [text.text for text in read_texts(bundle / HELD_OUT)] if (bundle / HELD_OUT).is_file() else []
    return {
        "held-out texts": held_out,
        "golden texts": [entry["text"] for entry in read_golden(bundle)],
        "hard texts": list(HARD_TEXTS),
        "code points": list(islice(code_point_texts(), 0, None, EVERY_CODE_POINT)),
    }
