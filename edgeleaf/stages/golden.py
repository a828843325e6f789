"""Write the golden pack of a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeleaf.bundle.golden import COSINE_MEAN_MIN, COSINE_MIN, GOLDEN_HARD_TEXTS
from edgeleaf.bundle.manifest import GOLDEN, QUERY_ENCODER, STUDENT
from edgeleaf.files import write_text
from edgeleaf.texts.lengths import texts_of_lengths

GOLDEN_LENGTHS = (4, 8, 16, 32, 64, 128)
GOLDEN_QUERIES = 24


def write_golden(bundle: Path, queries: Sequence[str], *, max_length: int, prompt: str) -> None:
    """Write ``golden.jsonl`` of a bundle from its own fused file.

    Args:
        bundle: folder with ``query_encoder.onnx`` and ``student/tokenizer.json``.
        queries: real queries, used as they are and cut into texts of 4 to 128 tokens, six per length.
        max_length: the window in tokens.
        prompt: the query prompt inside the file; ids contain it, texts do not.
    """
    from edgeleaf.bundle.encoder import QueryEncoder
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    tokenizer_json = (bundle / STUDENT / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer, uncut = (reference_tokenizer(tokenizer_json, length) for length in (max_length, 2 * GOLDEN_LENGTHS[-1]))
    lengths = [length for length in GOLDEN_LENGTHS if length <= max_length]
    made = (text for _, text in texts_of_lengths(uncut, queries, lengths, prompt))
    texts = dict.fromkeys([*GOLDEN_HARD_TEXTS, *queries[:GOLDEN_QUERIES], *made])
    encoder = QueryEncoder.load(bundle / QUERY_ENCODER)
    header = {
        "schema_version": 1,
        "space": encoder.space.id,
        "input": encoder.input,
        "token_ids": "equal",
        "cosine_min": COSINE_MIN,
        "cosine_mean_min": COSINE_MEAN_MIN,
        "empty_batch": True,
    }
    lines: list[dict[str, Any]] = [header]
    for text in texts:
        embedding = [round(float(value), 6) for value in encoder.encode([text])[0]]
        lines.append({"text": text, "input_ids": tokenizer.encode(prompt + text).ids, "embedding": embedding})
    write_text(bundle / GOLDEN, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
