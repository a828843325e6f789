"""Texts as a fused file's input: strings, or UTF-8 bytes for bindings that have no exact strings.

A file says by its input's name which of the two it takes. ``docs/decisions/0004-string-input.md`` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Input = Literal["text", "utf8"]
TEXT: Input = "text"
UTF8: Input = "utf8"
INPUTS: tuple[Input, ...] = get_args(Input)
TYPES = {TEXT: "tensor(string)", UTF8: "tensor(uint8)"}
FILLER = 0xFF
"""Fills up the shorter texts of a batch; UTF-8 never holds this byte."""

Feed = Callable[[Sequence[str]], dict[str, Any]]
"""Texts to the inputs of one run."""


def input_of(session: Any) -> Input:
    """Return which of the two an open session takes, by its first input's name."""
    return UTF8 if session.get_inputs()[0].name == UTF8 else TEXT


def feed_of(session: Any) -> Feed:
    """Return what makes texts the input of an open session."""
    return {TEXT: text_feed, UTF8: utf8_feed}[input_of(session)]


def text_feed(texts: Sequence[str]) -> dict[str, Any]:
    """Return ``{"text": string [texts]}``."""
    return {TEXT: np.array(list(texts), dtype=object)}


def utf8_feed(texts: Sequence[str]) -> dict[str, Any]:
    """Return ``{"utf8": uint8 [texts, bytes]}``."""
    return {UTF8: utf8_rows(texts)}


def utf8_rows(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return texts in UTF-8, one a row, short rows filled up on the right, uint8 [texts, bytes].

    Raises:
        UnicodeEncodeError: a text holds half a surrogate pair.

    Example:
        >>> utf8_rows(["é", "abc"])
        array([[195, 169, 255],
               [ 97,  98,  99]], dtype=uint8)
    """
    encoded = [text.encode() for text in texts]
    rows = np.full((len(encoded), max(map(len, encoded), default=0)), FILLER, np.uint8)
    for row, data in zip(rows, encoded, strict=True):
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows
