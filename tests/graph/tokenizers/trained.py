"""Tiny tokenizers of every kind but WordPiece, trained in-process, and texts that are hard for them."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from typing import Any

from edgeleaf.graph.tokenizers.charsmap import map_of
from edgeleaf.graph.tokenizers.splits import GPT2, KNOWN
from tests.graph.tokenizers.pairs import HARD, TRAINING, Json

LINES = (
    *TRAINING,
    "it's they're we've I'm you'll he'd, don't!\n\nNew  lines\r\n and   spaces \t here (brackets) -- 1234567 3.14",
    "the parcel, the parcels and the parcelled; banana bananas ananas aaaa aaaaaaaa",
)
REGEXES = dict(zip(("gpt2", "llama3", "qwen"), KNOWN, strict=True))
TEXTS = [
    *HARD,
    *TRAINING,
    "'",
    "''s",
    "it's 's'S 'ſ don''t I'LL we're x'sy 'sab (' 's",
    "a  b\n\n c \n d!\n\n  x \r\n",
    "!\n\n \n  y ?\n \t\nz \u2028a\n",
    "1234567 12 123 1234 ٣٤٥٦ ½1",
    "(abc ((abc \t(abc !abc a(b",
    "\n",
    " \n ",
    "a \u00a0b\u3000c\t\td  ",
    "e\u0301\u0323 o\u0302\u0323 \u1100\u1161\u11a8\u11a8 가\u11a8 \u0928\u093c \u212b \u0344 x\u0301",
    "a" * 3001 + " " + "ab" * 500,
    "<s>a</s> <mask> b  <mask>  c<pad>",
    "▁ ▁▁a ▁b >▁</",
]


def byte_level(*, regex: str = "gpt2", nfc: bool = False, size: int = 420, prefix: bool = False, **model: Any) -> Json:
    """Byte-level BPE, with special tokens as RoBERTa's."""
    settings: Json = json.loads(_byte_level(regex, nfc, size, prefix))
    settings["model"] |= model
    return settings


@lru_cache(maxsize=16)
def _byte_level(regex: str, nfc: bool, size: int, prefix: bool) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if nfc else None
    whole = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex == "gpt2")
    if regex == "gpt2":
        tokenizer.pre_tokenizer = whole
        assert REGEXES[regex] == GPT2
    else:
        split = pre_tokenizers.Split(Regex(REGEXES[regex]), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(LINES * 2, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    cls, sep = (tokenizer.token_to_id(token) for token in ("<s>", "</s>"))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", sep), ("<s>", cls))
    return str(tokenizer.to_str())


def with_bytes(*, prepend: bool = True, size: int = 500) -> Json:
    """SentencePiece's BPE with byte fallback, with Llama-2's normaliser or Gemma's."""
    settings: Json = json.loads(_with_bytes(prepend, size))
    return settings


@lru_cache(maxsize=4)
def _with_bytes(prepend: bool, size: int) -> str:
    from tokenizers import Tokenizer, models, normalizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prepend else replace
    special = ["<pad>", "</s>", "<s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, limit_alphabet=120, show_progress=False)
    tokenizer.train_from_iterator(LINES[0:1] * 3 + LINES[4:] * 3, trainer)
    settings = json.loads(tokenizer.to_str())
    settings["added_tokens"] = [entry for entry in settings["added_tokens"] if entry["id"] < 4]
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 2)])
    return str(tokenizer.to_str())


CHARSMAP = {
    **dict.fromkeys("\t\n\r\u00a0\u3000\u2028\ufffd▁", " "),
    **dict.fromkeys("\x01\u200b\u00ad", ""),
    "ﬁ": "fi",
    "㍿": "株式会社",
    "①": "1",
    "Ａ": "A",
    "\u0340": "\u0300",
    "\u0958": "क\u093c",
    "™": "TM",
    "é": "e\u0301",
    "e\u0301": "é",
    "o\u0302": "ô",
    "o\u0302\u0323": "ộ",
    "か\u3099": "が",
    "a\u0302\u0301": "ấ",
    "ﷺ": "صلى الله عليه وسلم",
}
"""Some of nmt_nfkc's keys: spaces, nothing, longer and shorter texts, and keys of several characters."""


def unigram(*, at_spaces: bool = True, charsmap: bool = True, strip: bool = False, size: int = 300) -> Json:
    """Unigram with XLM-R's pre-tokenizer, or T5's without WhitespaceSplit."""
    settings: Json = json.loads(_unigram(size))
    encoded = base64.b64encode(map_of(CHARSMAP)).decode()
    steps: list[Json] = [{"type": "Precompiled", "precompiled_charsmap": encoded}] if charsmap else []
    if strip:
        steps.append({"type": "Strip", "strip_left": False, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"})
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    splits = [{"type": "WhitespaceSplit"}, metaspace]
    return settings | {
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits} if at_spaces else metaspace,
    }


@lru_cache(maxsize=4)
def _unigram(size: int) -> str:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False, max_piece_length=12
    )
    tokenizer.train_from_iterator([line.replace("ﬁ", "fi") for line in LINES] * 2, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    return str(tokenizer.to_str())
