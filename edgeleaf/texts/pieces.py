"""Cuts texts into pieces: sentences, a few words of each sentence, or runs of words from anywhere."""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Iterable, Iterator

from edgeleaf.recipe.sources import Pieces

SPAN_WORDS = (2, 9)
"""Words in a span, as in most searches."""
LEAST_WORDS = 4
"""A shorter sentence gives no span, and a shorter text no window."""
WINDOW_WORDS = (3, 20)
"""Words in a window, from a search to a question."""
COVER = 6
"""Number of windows that contain a word of a text, on average."""
EDGES = " \t.,;:!?()[]{}\"'"
"""Characters that do not count at the ends of a text."""
SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<! vs\.)\s+(?=[\"'(“«]?[^\W\d_a-z])|(?<=[。！？।])\s*"
)


def sentences(text: str) -> list[str]:
    """Cut a text at the ends of its sentences.

    Example:
        >>> sentences("It folds. Some fold twice, e.g. Rubisco. Why?")
        ['It folds.', 'Some fold twice, e.g. Rubisco.', 'Why?']
    """
    return [sentence for sentence in SENTENCE_END.split(text) if sentence]


def spans(text: str) -> Iterator[str]:
    """Take a few neighbouring words of each sentence; the same sentence always gives the same words.

    A teacher encodes them like any text, so they teach a student the meaning of their words, at the length of a search.

    Example:
        >>> list(spans("The folding of Rubisco needs a chaperone that is made of many parts. No."))
        ['folding of Rubisco needs a chaperone that is made']
    """
    for sentence in sentences(text):
        words = sentence.split()
        if len(words) < LEAST_WORDS:
            continue
        chance = random.Random(sentence)
        length = min(chance.randint(*SPAN_WORDS), len(words) - 1)
        start = chance.randint(0, len(words) - length)
        span = " ".join(words[start : start + length]).strip(EDGES)
        if span:
            yield span


def windows(text: str) -> Iterator[str]:
    """Take many runs of words from anywhere in a text; the same text always gives the same runs.

    This needs no punctuation between sentences, and gives many windows even for a small corpus.

    Example:
        >>> next(windows("what similarity laws must be obeyed when constructing models of heated aircraft"))
        'what similarity laws must be obeyed when constructing models'
    """
    words = text.split()
    if len(words) < LEAST_WORDS:
        return
    chance, (least, most) = random.Random(text), WINDOW_WORDS
    for _ in range(max(1, round(2 * COVER * len(words) / (least + most)))):
        length = chance.randint(least, min(most, len(words)))
        start = chance.randint(0, len(words) - length)
        window = " ".join(words[start : start + length]).strip(EDGES)
        if window:
            yield window


def pieces_of(text: str, pieces: Pieces, max_chars: int) -> Iterable[str]:
    """Return a whole text, or its :func:`spans` or :func:`windows`, or its sentences, of which long ones are cut."""
    if pieces == "whole":
        return (text,)
    if pieces == "spans":
        return spans(text)
    if pieces == "windows":
        return windows(text)
    return (part for sentence in sentences(text) for part in textwrap.wrap(sentence, max_chars))
