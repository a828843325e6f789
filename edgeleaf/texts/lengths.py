"""Makes texts with an exact number of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

PER_LENGTH = 6


def texts_of_lengths(
    tokenizer: Any, queries: Sequence[str], lengths: Iterable[int], prompt: str
) -> Iterator[tuple[int, str]]:
    """Yield running text of exactly these numbers of tokens, special tokens and prompt included, six per length.

    Args:
        tokenizer: a tokenizer that does not truncate.
        queries: real queries; their words are taken in order, and at the end from the start again.
        lengths: lengths in tokens.
        prompt: text put before every text.
    """
    words = [word for query in queries for word in query.split()]
    for length in lengths:
        found = 0
        for start in range(len(words)):
            text, count = "", 0
            for i in range(length):
                text = f"{text} {words[(start + i) % len(words)]}".lstrip()
                count = len(tokenizer.encode(prompt + text).ids)
                if count >= length:
                    break
            if count == length:
                yield length, text
                found += 1
            if found == PER_LENGTH:
                break
