"""Finds a model's own window, and counts documents longer than a window or cuts them into passages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeleaf.errors import ModelError, TextsError
from edgeleaf.texts.documents import Document

AT_A_TIME = 1000
LONGEST_TITLE = 0.5
"""A title that takes more of the window than this share is not put before each passage."""
SPARE = 2
"""Tokens by which a passage may grow when it is cut out."""


def own_window(folder: Path, *, at_least: int) -> int:
    """Return how many tokens a model reads according to its own files, special tokens included.

    Args:
        folder: a sentence-transformers model.
        at_least: a window that is known to work; returned if the files name none, or a narrower one.
    """
    modules = _json(folder / "modules.json")
    first = modules[0].get("path", "") if isinstance(modules, list) and modules and isinstance(modules[0], dict) else ""
    places = [folder / first, folder] if isinstance(first, str) and ".." not in first.split("/") else [folder]
    said = [_number(place / "sentence_bert_config.json", "max_seq_length") for place in places]
    if window := next(filter(None, said), None):
        return max(window, at_least)
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


class Window:
    """A window of a model's tokenizer.

    Args:
        folder: the model's folder.
        tokens: how many tokens it reads of a text, special tokens included.
        prompt: text that the model puts before each document.

    Raises:
        ModelError: it has no tokenizer that can count.
    """

    def __init__(self, folder: Path, *, tokens: int, prompt: str = "") -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
        except (OSError, ValueError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{folder}: its tokenizer cannot count tokens: {reason}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.tokens, self._prompt = tokens, prompt

    def longer(self, texts: Sequence[str]) -> list[int]:
        """Return the positions of the texts that are longer than the window."""
        found = []
        for start in range(0, len(texts), AT_A_TIME):
            encoded = self._tokenizer.encode_batch([self._prompt + text for text in texts[start : start + AT_A_TIME]])
            found += [start + i for i, encoding in enumerate(encoded) if len(encoding.ids) > self.tokens]
        return found

    def passages(self, documents: Sequence[Document]) -> list[tuple[str, str]]:
        """Cut documents that are longer than the window into passages, between words.

        Returns:
            (id, text) pairs in order. A document that fits is not changed. Of one that does not fit, passage n (from
            1) has the id ``ID#n``, and the title before its text.

        Raises:
            TextsError: a passage would get the id of another document.
        """
        long = set(self.longer([document.text for document in documents]))
        taken = {document.id for document in documents}
        found = []
        for i, document in enumerate(documents):
            if i not in long:
                found.append((document.id, document.text))
                continue
            for n, text in enumerate(self._parts(document), 1):
                key = f"{document.id}#{n}"
                if key in taken:
                    raise TextsError(
                        f"passage {n} of document {document.id!r} would get the id {key!r} of another; rename it"
                    )
                taken.add(key)
                found.append((key, text))
        return found

    def _parts(self, document: Document) -> Iterator[str]:
        title, body = f"{document.title} " if document.title.strip() else "", document.body.strip()
        before = len(self._tokenizer.encode(self._prompt + title).ids)
        if before > self.tokens * LONGEST_TITLE:
            title, body = "", document.text
            before = len(self._tokenizer.encode(self._prompt).ids)
        room = max(1, self.tokens - before - SPARE)
        offsets = self._tokenizer.encode(body, add_special_tokens=False).offsets
        start, token = 0, 0
        while start < len(body):
            if len(offsets) - token <= room:
                end = len(body)
            else:
                end = offsets[token + room][0]
                end = max(next((at for at in range(end, start, -1) if body[at - 1].isspace()), end), start + 1)
            if part := body[start:end].strip():
                yield title + part
            start = end
            while token < len(offsets) and offsets[token][0] < end:
                token += 1
