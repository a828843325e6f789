"""A tokenizer as a graph beside the one of `tokenizers`, and tiny tokenizers to try."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from edgeleaf.bundle.feed import TEXT, Input, feed_of
from edgeleaf.graph.builder import OPSET, GraphBuilder
from edgeleaf.graph.tokenizers import append_input, append_tokenizer, opset_of
from edgeleaf.graph.tokenizers.spec import parse, read_spec, reference_tokenizer

Json = dict[str, Any]
MAX_LENGTH = 128
TRAINING = (
    "Where is my parcel? Unbelievable, unaffordable: 12.50€!",
    "électricité Ångström naïve café ĳ Œuvre ΑΣ ΌΧΙ ὀδυσσεύς Привет мир подъезд İstanbul ığdır",
    "東京で寿司を食べたい がぎぐげご ガギグ 한국어 질문 각하 ㄱㄴ 中国人民 豈更",
    "हिन्दी में पार्सल कहाँ है ภาษาไทย اَلْعَرَبِيَّةُ שָׁלוֹם e\u0301 o\u0323\u0302 👍 🏳️‍🌈 𝔘𝔫𝔦 ①②",
)


class Pair:
    """A tokenizer as a graph and as it came; ``outputs`` are ids, mask and, if asked for, token types."""

    def __init__(
        self,
        tokenizer: Json,
        *,
        max_length: int = MAX_LENGTH,
        prompt: str = "",
        opset: int = OPSET,
        token_type_ids: bool = False,
        takes: Input = TEXT,
    ) -> None:
        graph = GraphBuilder("tokenizer", opset=max(opset, opset_of(tokenizer)))
        self.outputs = append_tokenizer(
            graph,
            append_input(graph, takes),
            tokenizer,
            max_length=max_length,
            prompt=prompt,
            token_type_ids=token_type_ids,
            takes=takes,
        )
        for name in self.outputs:
            graph.output(name, name, TensorProto.INT64, ["batch", "sequence"])
        self.model = graph.model()
        self.session = ort.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.feed = feed_of(self.session)
        self.reference = reference_tokenizer(tokenizer, max_length)
        self.prompt = prompt
        spec = read_spec(parse(tokenizer))
        self.pads = (spec.pad_id, 0, spec.pad_type)

    def run(self, texts: list[str]) -> list[np.ndarray]:
        found: list[np.ndarray] = self.session.run(list(self.outputs), self.feed(texts))
        return found

    def expected(self, texts: list[str]) -> list[np.ndarray]:
        encodings = self.reference.encode_batch([self.prompt + text for text in texts])
        rows = [(encoding.ids, encoding.attention_mask, encoding.type_ids) for encoding in encodings]
        shape = (len(rows), max(len(ids) for ids, _, _ in rows))
        found = [np.full(shape, pad, np.int64) for pad in self.pads[: len(self.outputs)]]
        for i, row in enumerate(rows):
            for array, values in zip(found, row, strict=False):
                array[i, : len(values)] = values
        return found

    def mismatches(self, texts: list[str], *, batch: int = 2048) -> list[str]:
        """Return the texts for which any output differs."""
        found = []
        for start in range(0, len(texts), batch):
            part = texts[start : start + batch]
            made, expected = self.run(part), self.expected(part)
            wrong = np.zeros(len(part), bool)
            for array, other in zip(made, expected, strict=True):
                if array.shape == other.shape:
                    wrong |= (array != other).any(axis=1)
                else:  # some row is too long or too short: the ones that are so alone, or all of them
                    alone = [len(part) == 1 or bool(self.mismatches([text])) for text in part]
                    wrong |= np.array(alone) | (not any(alone))
            found += [part[i] for i in np.flatnonzero(wrong)]
        return found

    def check(self, texts: list[str]) -> None:
        assert self.mismatches(texts) == []


def with_added(tokenizer: Json, *tokens: str | Json) -> Json:
    """The tokenizer with further added tokens: a content, or a dict with content and flags."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    entries = [{"content": token} if isinstance(token, str) else token for token in tokens]
    added = [plain | entry | {"id": 5000 + i} for i, entry in enumerate(entries)]
    return tokenizer | {"added_tokens": [*tokenizer["added_tokens"], *added]}


def trained(*, prefix: str = "##", limit: int = 100, **normalizer: Any) -> Json:
    """A tiny tokenizer.json, trained on many scripts: single characters, and entries up to eight symbols."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = {
        word
        for line in TRAINING
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(line))
    }
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = {word[a:b] for word in words for a in range(len(word)) for b in range(a + 1, min(a + 9, len(word) + 1))}
    entries += [piece for piece in sorted(pieces) if len(piece) < 3 or sum(map(ord, piece)) % 3]
    entries += [prefix + piece for piece in sorted(pieces) if sum(map(ord, piece)) % 7 and prefix]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(entries))}
    tokenizer.model = models.WordPiece(
        vocab, unk_token="[UNK]", continuing_subword_prefix=prefix, max_input_chars_per_word=limit
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    settings: Json = json.loads(tokenizer.to_str())
    return settings


HARD = [
    "",
    " ",
    "\t\r\n\x0b\x0c",
    "\0",
    "\ufffd\u200b\u00ad",
    "\u0301",
    "a\0b\ufffdc\u200dd",
    "How many people live in Berlin?",
    "C++ vs. C# -- what's the difference?!",
    "Zürich Ångström naïve café ﬁn ß ẞ ŉ ǰ",
    "ΑΣ ὈΔΥΣΣΕΎΣ Σ İI ıi",
    "東京で寿司を食べたい 㐀𠀀豈",
    "한국어 각각 \u1100\u1161\u11a8",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301\u0323 q\u0323\u0307",
    "[SEP][CLS] [PAD]x[MASK]y [UNK]",
    "[sep] [SEP [[SEP]] [ SEP ] [S\u200bEP] [SEP\u0301]",
    "[unused1] ##ing # ##",
    "\u302e\u1b44a\u1b44\u302e \U0001d165\u302f",
    "a\x85b\xa0c\u1680d\u2028e\u3000f",
    *("x" * n for n in (99, 100, 101)),
    *("é" * n for n in (99, 100, 101)),
    *("e\u0301" * n for n in (99, 100, 101)),
    *("한" * n for n in (33, 34, 50, 51)),
    "a" * 101 + " " + "b" * 100 + "," + "c" * 101 + "d",
    "x" * 10_000,
    "[SEP]" * 300,
    ("word " * 40 + "\u200b" * 50) * 10,
    " " * 5000 + "end",
    "中" * 400,
]
