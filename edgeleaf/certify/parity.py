"""Token parity: does the fused file cut a text into the same ids as the reference tokenizer, always?

One id that differs is another word: the vector of another query. So there is no tolerance, only a count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf import progress

TokenIds = Callable[[Sequence[str]], list[list[int]]]
"""Texts to their token ids, special tokens included, padding not."""

BATCH_SIZE = 32
EXAMPLES = 5
LAST_CODE_POINT = 0x10FFFF
SURROGATES = range(0xD800, 0xE000)
EMPTY_PLANES = range(0x40000, 0xE0000)
"""Planes 4 to 13, where Unicode has assigned nothing: normalisers treat all of it alike."""
CODE_POINT_TEXTS = LAST_CODE_POINT + 1 - len(SURROGATES) - len(EMPTY_PLANES) * 7 // 8
SWEEP_SIZE = 4096

HARD_TEXTS: tuple[str, ...] = (
    "",
    " ",
    "\t\r\n \v\f",
    "\u00a0\u2003\u3000",
    "   leading and trailing   ",
    "two  spaces\tand\ttabs\nand lines\r\n",
    "UPPER lower MiXeD",
    "déjà vu, naïve façade, Ångström, ǅ, İstanbul, ẞtraße",
    "e\u0301 a\u0308 o\u0328\u0301 \u0301alone",
    "ﬁ ligature, Ⅷ, ①, ½, ㎏, ℌ",
    "日本語のテキスト 中文字符 한국어 텍스트",
    "word中word文word",
    "हिन्दी पाठ ไทย ไทยแลนด์ العربية עברית Ελληνικά ΣΊΣΥΦΟΣ Русский йод",
    "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ☎️ 𝒜𝓑𝔠 𐍈 𠜎",
    "zero\u200bwidth\u200djoin\u2060er\ufeffbom soft\u00adhyphen",
    "\x00 nul \x00in\x00side",
    "\x01\x02\x1f\x7f\x80\x9f controls be\x07ep",
    "\ufffd replaced\ufffd \ue000 private \U000f0000",
    "\uffff\U0010ffff unassigned\u0378",
    "don't can't won't it's o'clock rock'n'roll",
    "a.b.c. ... --- ___ ~~~ `code` $100 50% #tag @user 1,000.50 3.14e-10",
    "¡hola! ¿qué? «guillemets» „quotes“ “curly” ‘single’ …",
    "https://example.org/a/b?c=d&e=f#g mail@example.org C:\\path\\file.txt",
    "def f(x): return x**2 != {'a': [1, 2]}[x] // 3",
    "[SEP]",
    "[CLS] [SEP] [PAD] [UNK] [MASK]",
    "before [SEP] after[SEP]joined [sep] [ SEP ]",
    "##ing ##s un ##known",
    "a" * 99,
    "a" * 100,
    "a" * 101,
    "x " + "é" * 100 + " y",
    "x " + "é" * 101 + " y",
    "中" * 101,
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 2000 + " after a very long word",
    "one two three four five six seven eight nine ten " * 60,
    "short again",
)


@dataclass(frozen=True)
class Mismatch:
    """A text that the fused file cuts differently, with both lists of ids."""

    text: str
    expected_ids: tuple[int, ...]
    fused_ids: tuple[int, ...]


@dataclass(frozen=True)
class Parity:
    """Token parity of a fused file.

    Args:
        tried: comparisons made; the built-in hard texts count twice, alone and in a batch.
        mismatches: how many differed.
        code_points: whether every Unicode code point was among them.
        examples: the first few that differed.
    """

    tried: int
    mismatches: int
    code_points: bool
    examples: tuple[Mismatch, ...]


def token_parity(
    fused: TokenIds, expected: TokenIds, *, texts: Sequence[str] = (), code_points: bool = False
) -> Parity:
    """Compare token ids on built-in hard texts (alone and in a mixed batch), on ``texts``, and on every code point.

    Args:
        fused: the file's own ids, see :func:`fused_token_ids`.
        expected: the reference tokenizer's, see :func:`reference_token_ids`.
        texts: further texts, compared in batches of 32 in the given order.
        code_points: also try each of the 1,112,064 code points, inside a word and alone.
    """
    tried = mismatches = 0
    examples: list[Mismatch] = []
    total = 2 * len(HARD_TEXTS) + len(texts) + (CODE_POINT_TEXTS if code_points else 0)
    with progress.bar("check: token parity", total) as advance:
        for batch in _batches(texts, code_points):
            for text, want, got in zip(batch, expected(batch), fused(batch), strict=True):
                tried += 1
                if want != got:
                    mismatches += 1
                    if len(examples) < EXAMPLES:
                        examples.append(Mismatch(text, tuple(want), tuple(got)))
            advance(len(batch))
    return Parity(tried=tried, mismatches=mismatches, code_points=code_points, examples=tuple(examples))


def _batches(texts: Sequence[str], code_points: bool) -> Iterator[list[str]]:
    for text in HARD_TEXTS:
        yield [text]
    every = [*HARD_TEXTS, *texts]
    for start in range(0, len(every), BATCH_SIZE):
        yield every[start : start + BATCH_SIZE]
    if code_points:
        texts = list(code_point_texts())
        for start in range(0, len(texts), SWEEP_SIZE):
            yield texts[start : start + SWEEP_SIZE]


def code_point_texts() -> Iterator[str]:
    """Every code point inside a word and alone; in the planes where Unicode has nothing, eight of them a text."""
    packed: list[str] = []
    for code_point in range(LAST_CODE_POINT + 1):
        if code_point in SURROGATES:
            continue
        packed.append(f"a{chr(code_point)}b {chr(code_point)}")
        if code_point not in EMPTY_PLANES or len(packed) == 8:
            yield " ".join(packed)
            packed = []


def added_token_texts(tokenizer: Any) -> list[str]:
    """Texts about a tokenizer's added tokens: alone, in words, between spaces, twice, in other case, beside each other.

    Args:
        tokenizer: the reference. Of many added tokens, the first and the last 100 are tried.
    """
    contents = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    contents = contents if len(contents) <= 200 else contents[:100] + contents[-100:]
    forms = ("{0}", "x{0}y", " {0} ", "{0}{0}", "{0}\t{0}", "a, {0}. b", "_{0}-", "{0}\u0301", "\u200b{0}")
    texts = [form.format(content) for content in contents for form in forms]
    texts += [
        change for content in contents for change in (content.upper(), content.lower(), content[:-1], content[1:])
    ]
    few = contents[:12]
    texts += [f"{one}{between}{other}" for one in few for other in few for between in ("", " ", " \n", "x")]
    return list(dict.fromkeys(texts))


def reference_token_ids(tokenizer: Any, prompt: str) -> TokenIds:
    """Return the ids that ``tokenizers`` gives ``prompt + text``; ``tokenizer`` truncates and does not pad."""

    def token_ids(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch([prompt + text for text in texts])]

    return token_ids


def fused_token_ids(file: Path, *, threads: int = 1) -> TokenIds:
    """Return the ids inside a fused file, tapped at ``input_ids`` and ``attention_mask``; the encoder is cut off.

    Args:
        file: a ``query_encoder.onnx``.
        threads: processor threads for the graph.

    Raises:
        BundleError: no such file, or one without those tensors.
    """
    from edgeleaf.encoder import session
    from edgeleaf.errors import BundleError, ExportError
    from edgeleaf.graph.adopt import load_model
    from edgeleaf.graph.fuse import tokenizer_of

    if not file.is_file():
        raise BundleError(f"{file}: missing; build or copy the bundle again")
    try:
        model = load_model(file)
    except ExportError as error:
        raise BundleError(str(error)) from None
    try:
        model = tokenizer_of(model)
    except ExportError:
        raise BundleError(
            f"{file}: has no inner tensors input_ids and attention_mask; a fused query encoder is needed"
        ) from None
    return token_ids_of(session(model.SerializeToString(), threads=threads))


def token_ids_of(tokenizer: Any) -> TokenIds:
    """Return the ids that an open session of a tokenizer gives: text in, input_ids and attention_mask out."""

    def token_ids(texts: Sequence[str]) -> list[list[int]]:
        ids, mask = tokenizer.run(["input_ids", "attention_mask"], {"text": np.array(texts, dtype=object)})
        lengths = mask.sum(axis=1)
        # Ones first, zeros after: anything else is no padding, and its row is kept whole so that it cannot agree.
        prefix = (np.arange(mask.shape[1]) < lengths[:, None]) == (mask == 1)
        whole = [row[:length] if ok else row for row, length, ok in zip(ids, lengths, prefix.all(axis=1), strict=True)]
        return [row.tolist() for row in whole]

    return token_ids
