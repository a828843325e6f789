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
_WORD = re.compile(r"(?<=[0-9A-Za-z] )[0-9A-Za-z]")
"""An ASCII letter or digit that begins a word, with one space between it and another one. Each is at least one token
of BPE or Unigram, and what lies before it does not depend on it."""


@dataclass(frozen=True)
class LongTexts:
    """How much of a text can affect its tokens.

    Attributes:
        units: number of ASCII words and punctuation marks after which nothing matters.
        characters: number of ASCII letters and digits of a word after which nothing matters: longer words are unknown
            anyway. 0 if all of a word and every space matters, and no punctuation mark counts as a unit, as with BPE
            and Unigram.
    """

    units: int
    characters: int

    @staticmethod
    def read(metadata: Mapping[str, str]) -> LongTexts | None:
        """Return the entry of a file's metadata, or None if there is no valid entry."""
        found = re.fullmatch(r"(\d{1,9}) (\d{1,9})", metadata.get(METADATA_LONG_TEXTS, ""))
        return LongTexts(int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.units} {self.characters}"

    def shortened(self, text: str) -> str:
        """Return a text that has the same tokens in the encoder's window but leaves out most of the rest."""
        if len(text) <= LONG:
            return text
        for count, unit in enumerate((_UNIT if self.characters else _WORD).finditer(text)):
            if count == self.units:
                text = text[: unit.start()]
                break
        if not self.characters:
            return text
        text = re.sub(rf"([0-9A-Za-z]{{{self.characters}}})[0-9A-Za-z]+", r"\1", text)
        return _SPACES.sub(" ", text)
