"""Texts that are hard for tokenizers, including every code point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LAST_CODE_POINT = 0x10FFFF
SURROGATES = range(0xD800, 0xE000)
EMPTY_PLANES = range(0x40000, 0xE0000)
"""Planes 4 to 13, where Unicode has assigned nothing: normalisers treat all of these code points alike."""
CODE_POINT_TEXTS = LAST_CODE_POINT + 1 - len(SURROGATES) - len(EMPTY_PLANES) * 7 // 8

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


def code_point_texts() -> Iterator[str]:
    """Yield texts with every code point, inside a word and alone.

    One code point per text; eight per text in the planes where Unicode has assigned nothing.
    """
    packed: list[str] = []
    for code_point in range(LAST_CODE_POINT + 1):
        if code_point in SURROGATES:
            continue
        packed.append(f"a{chr(code_point)}b {chr(code_point)}")
        if code_point not in EMPTY_PLANES or len(packed) == 8:
            yield " ".join(packed)
            packed = []


def added_token_texts(tokenizer: Any) -> list[str]:
    """Return texts with a tokenizer's added tokens: alone, in words, between spaces, doubled, in other case, adjacent.

    Args:
        tokenizer: the reference. If it has more than 200 added tokens, the first and the last 100 are used.
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
