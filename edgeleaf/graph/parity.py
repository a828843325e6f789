"""Token parity: does the fused file cut a text into the same ids as the reference tokenizer, always?

One id that differs is another word: the vector of another query. So there is no tolerance, only a count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf import progress
from edgeleaf.bundle.feed import feed_of
from edgeleaf.graph.cores import in_order
from edgeleaf.graph.hard_texts import CODE_POINT_TEXTS, HARD_TEXTS, code_point_texts

TokenIds = Callable[[Sequence[str]], list[list[int]]]
"""Texts to their token ids, special tokens included, padding not."""

_BATCH_SIZE = 32
EXAMPLES = 5
SWEEP_SIZE = 4096


@dataclass(frozen=True)
class Mismatch:
    """A text that the fused file cuts differently, with both lists of ids."""

    text: str
    expected_ids: tuple[int, ...]
    fused_ids: tuple[int, ...]


@dataclass(frozen=True)
class Parity:
    """Token parity of a fused file.

    Args:
        tried: comparisons made; the built-in hard texts count twice, alone and in a batch.
        mismatches: how many differed.
        code_points: whether every Unicode code point was among them.
        examples: the first few that differed.
    """

    tried: int
    mismatches: int
    code_points: bool
    examples: tuple[Mismatch, ...]


def token_parity(
    fused: TokenIds, expected: TokenIds, *, texts: Sequence[str] = (), code_points: bool = False
) -> Parity:
    """Compare token ids on built-in hard texts (alone and in a mixed batch), on ``texts``, and on every code point.

    Args:
        fused: the file's own ids, see :func:`fused_token_ids`.
        expected: the reference tokenizer's, see :func:`reference_token_ids`.
        texts: further texts, compared in batches of 32 in the given order.
        code_points: also try each of the 1,112,064 code points, inside a word and alone.

    Batches go to every processor core, so both functions are called from several threads.
    """

    def compare(batch: list[str]) -> tuple[int, list[Mismatch]]:
        wrong = [
            Mismatch(text, tuple(want), tuple(got))
            for text, want, got in zip(batch, expected(batch), fused(batch), strict=True)
            if want != got
        ]
        return len(batch), wrong

    tried = mismatches = 0
    examples: list[Mismatch] = []
    total = 2 * len(HARD_TEXTS) + len(texts) + (CODE_POINT_TEXTS if code_points else 0)
    with progress.bar("check: token parity", total) as advance:
        for size, wrong in in_order(compare, _batches(texts, code_points)):
            tried += size
            mismatches += len(wrong)
            examples += wrong[: EXAMPLES - len(examples)]
            advance(size)
    return Parity(tried=tried, mismatches=mismatches, code_points=code_points, examples=tuple(examples))


def _batches(texts: Sequence[str], code_points: bool) -> Iterator[list[str]]:
    for text in HARD_TEXTS:
        yield [text]
    every = [*HARD_TEXTS, *texts]
    for start in range(0, len(every), _BATCH_SIZE):
        yield every[start : start + _BATCH_SIZE]
    if code_points:
        texts = list(code_point_texts())
        for start in range(0, len(texts), SWEEP_SIZE):
            yield texts[start : start + SWEEP_SIZE]


def reference_token_ids(tokenizer: Any, prompt: str) -> TokenIds:
    """Return the ids that ``tokenizers`` gives ``prompt + text``; ``tokenizer`` truncates and does not pad."""

    def token_ids(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch([prompt + text for text in texts])]

    return token_ids


def fused_token_ids(file: Path, *, threads: int = 1) -> TokenIds:
    """Return the ids inside a fused file, tapped at ``input_ids`` and ``attention_mask``; the encoder is cut off.

    Args:
        file: a ``query_encoder.onnx``.
        threads: processor threads for the graph.

    Raises:
        BundleError: no such file, or one without those tensors.
    """
    from edgeleaf.bundle.session import session
    from edgeleaf.errors import BundleError, ExportError
    from edgeleaf.graph.adopt import load_model
    from edgeleaf.graph.fuse import tokenizer_of

    if not file.is_file():
        raise BundleError(f"{file}: missing; build or copy the bundle again")
    try:
        model = load_model(file)
    except ExportError as error:
        raise BundleError(str(error)) from None
    try:
        model = tokenizer_of(model)
    except ExportError:
        raise BundleError(
            f"{file}: has no inner tensors input_ids and attention_mask; a fused query encoder is needed"
        ) from None
    return token_ids_of(session(model.SerializeToString(), threads=threads))


def token_ids_of(tokenizer: Any) -> TokenIds:
    """Return the ids that an open session of a tokenizer gives: text or utf8 in, input_ids and attention_mask out."""

    feed = feed_of(tokenizer)

    def token_ids(texts: Sequence[str]) -> list[list[int]]:
        ids, mask = tokenizer.run(["input_ids", "attention_mask"], feed(texts))
        lengths = mask.sum(axis=1)
        # Ones first, zeros after: anything else is no padding, and its row is kept whole so that it cannot agree.
        prefix = (np.arange(mask.shape[1]) < lengths[:, None]) == (mask == 1)
        whole = [row[:length] if ok else row for row, length, ok in zip(ids, lengths, prefix.all(axis=1), strict=True)]
        return [row.tolist() for row in whole]

    return token_ids
