"""Shortens a long text before it goes to the encoder, so that it needs little memory; its vector does not change.

The graph itself reads a long text in blocks (edgeleaf/graph/tokenizers/long_texts.py). But since onnxruntime 1.27, the
graph's first operator takes 16 bytes per character before that: 160 MB for 10 MB of ASCII. A file's metadata records
how much of a text can affect its tokens; the rest is removed here. If this is not known for a tokenizer, the file has
no such entry, and its texts go to the graph unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

METADATA_LONG_TEXTS = "edgeleaf.long_texts"
LONG = 20_000
"""A text of up to this many characters goes to the graph unchanged."""
_UNIT = re.compile(r"[!-/:-@\[-`{-~]|(?<![^\t\n\r -/:-@\[-`{-~])[0-9A-Za-z]")
"""ASCII punctuation, or an ASCII letter or digit that begins a word. Each unit is at least one token, or part of an
added token; the number of units in the file's metadata makes allowance for added tokens."""
_SPACES = re.compile(r"[\t\n\r ]{2,}")
ASCII_LETTERS = "0-9A-Za-z"
LETTERS = (
    f"{ASCII_LETTERS}\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u0131\u0134-\u013e\u0141-\u0148\u014a-\u017e"
    "\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03ce\u0400-\u0481\u048a-\u052f\u05d0-\u05ea\u0621-\u063a\u0641-\u064a"
    "\u0905-\u0939\u0e01-\u0e30\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
"""Letters and digits as a regular expression has them between brackets: Latin, Greek, Cyrillic, Hebrew, Arabic,
Devanagari, Thai, kana, Chinese, Hangul. No marks, and nothing that a normal form changes."""
MARKS = "。，、！？；："
"""Punctuation marks of Chinese and Japanese, which stand between words without a space."""


@dataclass(frozen=True)
class LongTexts:
    """How much of a text can affect its tokens.

    Attributes:
        units: number of ASCII words and punctuation marks after which nothing matters.
        characters: number of ASCII letters and digits of a word after which nothing matters: longer words are unknown
            anyway. 0 if all of a word and every space matters, as with BPE and Unigram: a unit is then a letter or
            digit that begins a word, with one of the separators between it and another one. Each is at least one token,
            and what lies before it does not depend on it.
        separators: a space and perhaps some ``MARKS``, between two of ``LETTERS``. Empty if ASCII alone is known: a
            space between two of ``ASCII_LETTERS``.
    """

    units: int
    characters: int
    separators: str = ""

    @staticmethod
    def read(metadata: Mapping[str, str]) -> LongTexts | None:
        """Return the entry of a file's metadata, or None if there is no valid entry."""
        found = re.fullmatch(rf"(\d{{1,9}}) (\d{{1,9}})(?: ( [{MARKS}]*))?", metadata.get(METADATA_LONG_TEXTS, ""))
        return LongTexts(int(found[1]), int(found[2]), found[3] or "") if found else None

    def __str__(self) -> str:
        return f"{self.units} {self.characters}" + (f" {self.separators}" if self.separators else "")

    def shortened(self, text: str) -> str:
        """Return a text that has the same tokens in the encoder's window but leaves out most of the rest."""
        if len(text) <= LONG:
            return text
        letters = LETTERS if self.separators else ASCII_LETTERS
        word = re.compile(rf"(?<=[{letters}][{self.separators or ' '}])[{letters}]")
        for count, unit in enumerate((_UNIT if self.characters else word).finditer(text)):
            if count == self.units:
                text = text[: unit.start()]
                break
        if not self.characters:
            return text
        text = re.sub(rf"([0-9A-Za-z]{{{self.characters}}})[0-9A-Za-z]+", r"\1", text)
        return _SPACES.sub(" ", text)
