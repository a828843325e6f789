"""The golden pack: texts, token ids and vectors that any port of the encoder must reproduce.

``golden.jsonl``, first line ``{"schema_version", "space", "cosine_min", "token_ids"}``, then a line a text:
``{"text", "input_ids", "embedding"}``. Token ids must be equal; an embedding must have ``cosine_min`` to the one here,
which leaves room for the arithmetic of other processors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeleaf.bundle import GOLDEN, QUERY_ENCODER, STUDENT, write_text
from edgeleaf.errors import BundleError

COSINE_MIN = 0.999
LENGTHS = (4, 8, 16, 32, 64, 128)
PER_LENGTH = 6
QUERIES = 24
HARD = (
    "",
    " ",
    "\t\n ",
    "Zürich Ångström naïve café",
    "ＦＵＬＬ ｗｉｄｔｈ １２３",
    "東京で寿司を食べたい",
    "Где моя посылка?",
    "أين طردي؟",
    "मेरा पार्सल कहाँ है?",
    "한국어 질문",
    "👩‍👩‍👧‍👦 family emoji 🏳️‍🌈",
    "e\u0301 combining, zero\u200bwidth, soft\u00adhyphen",
    "C++ vs. C# -- what's the difference?!",
    "[SEP] literal [CLS] specials [MASK]",
    "https://example.org/path?q=1&lang=en#top",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "\x00null\ufffdreplacement\x07bell",
)


def write_golden(bundle: Path, queries: Sequence[str], *, max_length: int, prompt: str) -> None:
    """Write ``golden.jsonl`` of a bundle from its own fused file.

    Args:
        bundle: folder with ``query_encoder.onnx`` and ``student/tokenizer.json``.
        queries: real queries, to take and to cut into texts of 4 to 128 tokens, six of each length.
        max_length: the window in tokens.
        prompt: the query prompt inside the file; ids hold it, texts don't.
    """
    from edgeleaf.encoder import QueryEncoder
    from edgeleaf.graph.tokenizers import reference_tokenizer

    tokenizer_json = (bundle / STUDENT / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer, uncut = (reference_tokenizer(tokenizer_json, length) for length in (max_length, 2 * LENGTHS[-1]))
    texts = dict.fromkeys([*HARD, *queries[:QUERIES], *_of_lengths(uncut, queries, max_length, prompt)])
    encoder = QueryEncoder.load(bundle / QUERY_ENCODER)
    header = {"schema_version": 1, "space": encoder.space.id, "token_ids": "equal", "cosine_min": COSINE_MIN}
    lines: list[dict[str, Any]] = [header]
    for text in texts:
        embedding = [round(float(value), 6) for value in encoder.encode([text])[0]]
        lines.append({"text": text, "input_ids": tokenizer.encode(prompt + text).ids, "embedding": embedding})
    write_text(bundle / GOLDEN, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_golden(bundle: Path) -> list[dict[str, Any]]:
    """Return the entries of a bundle's golden pack, without the header: text, input_ids and embedding each.

    Raises:
        BundleError: no such file, or a damaged line.
    """
    file = bundle / GOLDEN
    try:
        entries = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        entries = [entry for entry in entries if "schema_version" not in entry]
        if all(isinstance(entry["text"], str) and isinstance(entry["input_ids"], list) for entry in entries):
            return entries
        reason = "a line without text or input_ids"
    except OSError:
        raise BundleError(f"{file}: missing; build or copy the bundle again") from None
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error)
    raise BundleError(f"{file}: damaged ({reason}); build or copy the bundle again")


def _of_lengths(tokenizer: Any, queries: Sequence[str], max_length: int, prompt: str) -> Iterator[str]:
    """Yield running text of exactly 4, 8, ... tokens, special tokens and prompt included, none of it cut off."""
    words = [word for query in queries for word in query.split()]
    for length in (length for length in LENGTHS if length <= max_length):
        found = 0
        for start in range(len(words)):
            text = ""
            for word in words[start : start + length]:
                text = f"{text} {word}".lstrip()
                count = len(tokenizer.encode(prompt + text).ids)
                if count >= length:
                    break
            if count == length:
                yield text
                found += 1
            if found == PER_LENGTH:
                break
