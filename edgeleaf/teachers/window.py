"""Finds a model's own window, and counts documents longer than a window or cuts them into passages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeleaf.errors import ModelError

AT_A_TIME = 1000
LONGEST_TITLE = 0.5
"""A title that takes more of the window than this share is not put before each passage."""
SPARE = 2
"""Tokens by which a passage may grow when it is cut out."""


def own_window(folder: Path, *, at_least: int, by_positions: bool = True) -> int:
    """Return how many tokens a model reads according to its own files, special tokens included.

    Args:
        folder: a sentence-transformers model.
        at_least: a window that is known to work; returned if the files name none, or a narrower one.
        by_positions: whether a model that names no window reads as many tokens as it has positions.
    """
    modules = _json(folder / "modules.json")
    first = modules[0].get("path", "") if isinstance(modules, list) and modules and isinstance(modules[0], dict) else ""
    places = [folder / first, folder] if isinstance(first, str) and ".." not in first.split("/") else [folder]
    said = [_number(place / "sentence_bert_config.json", "max_seq_length") for place in places]
    if window := next(filter(None, said), None):
        return max(window, at_least)
    if not by_positions:
        return at_least
    limits = [
        next(filter(None, (_number(place / name, key) for place in places)), None)
        for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length"))
    ]
    known = [limit for limit in limits if limit]
    return max(min(known), at_least) if len(known) == 2 else at_least


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _number(path: Path, key: str) -> int | None:
    found = _json(path)
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def uncut_tokenizer(folder: Path) -> Any:
    """Return a model's tokenizer, a ``tokenizers.Tokenizer`` that neither pads nor truncates.

    Raises:
        ModelError: it has none that can count.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: its tokenizer cannot count tokens: {reason}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class Window:
    """A window of a model's tokenizer.

    Args:
        folder: the model's folder.
        tokens: how many tokens it reads of a text, special tokens included.
        prompt: text that the model puts before each document.
        tokenizer: counts instead of the folder's own; without padding and truncation.

    Raises:
        ModelError: it has no tokenizer that can count.
    """

    def __init__(self, folder: Path, *, tokens: int, prompt: str = "", tokenizer: Any = None) -> None:
        self._tokenizer = uncut_tokenizer(folder) if tokenizer is None else tokenizer
        self.tokens, self._prompt = tokens, prompt

    def longer(self, texts: Sequence[str]) -> list[int]:
        """Return the positions of the texts that are longer than the window."""
        found = []
        for start in range(0, len(texts), AT_A_TIME):
            encoded = self._tokenizer.encode_batch([self._prompt + text for text in texts[start : start + AT_A_TIME]])
            found += [start + i for i, encoding in enumerate(encoded) if len(encoding.ids) > self.tokens]
        return found

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, without prompt and special tokens."""
        found: list[int] = []
        for start in range(0, len(texts), AT_A_TIME):
            encoded = self._tokenizer.encode_batch(list(texts[start : start + AT_A_TIME]), add_special_tokens=False)
            found += [len(encoding.ids) for encoding in encoded]
        return found

    def room(self, title: str) -> int | None:
        """Return how many tokens of a document's body fit behind its title; None if the title takes too much."""
        before = len(self._tokenizer.encode(self._prompt + title).ids)
        return None if before > self.tokens * LONGEST_TITLE else max(1, self.tokens - before - SPARE)

    def parts(self, title: str, body: str) -> Iterator[tuple[int, str]]:
        """Cut a document into parts that fit, between words.

        Yields:
            where each part begins in ``body`` without the white space around it, and the part, its title before it
            unless the title takes too much of the window (then it is cut like the body, and the places count it).
        """
        title, body = f"{title} " if title.strip() else "", body.strip()
        room = self.room(title)
        if room is None:
            title, body = "", f"{title}{body}".strip()
            room = max(1, self.tokens - len(self._tokenizer.encode(self._prompt).ids) - SPARE)
        offsets = self._tokenizer.encode(body, add_special_tokens=False).offsets
        start, token = 0, 0
        while start < len(body):
            if len(offsets) - token <= room:
                end = len(body)
            else:
                end = offsets[token + room][0]
                end = max(next((at for at in range(end, start, -1) if body[at - 1].isspace()), end), start + 1)
            if part := body[start:end].strip():
                yield start + len(body[start:end]) - len(body[start:end].lstrip()), title + part
            start = end
            while token < len(offsets) and offsets[token][0] < end:
                token += 1
