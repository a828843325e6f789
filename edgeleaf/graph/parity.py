"""Token parity: does the fused file always give a text the same token ids as the reference tokenizer?

If one id differs, the encoder reads a different word and returns the vector of a different query. So there is no
tolerance, only a count of differences.
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
"""A function from texts to their token ids, with special tokens but without padding."""

_BATCH_SIZE = 32
EXAMPLES = 5
SWEEP_SIZE = 4096


@dataclass(frozen=True)
class Mismatch:
    """A text to which the fused file gives different token ids, with both lists of ids."""

    text: str
    expected_ids: tuple[int, ...]
    fused_ids: tuple[int, ...]


@dataclass(frozen=True)
class Parity:
    """Token parity of a fused file.

    Args:
        tried: number of comparisons; the built-in hard texts count twice, alone and in a batch.
        mismatches: how many of them differed.
        code_points: whether every Unicode code point was compared.
        examples: the first few texts that differed.
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
        fused: gives the file's own ids, see :func:`fused_token_ids`.
        expected: gives the reference tokenizer's ids, see :func:`reference_token_ids`.
        texts: further texts, compared in batches of 32 in the given order.
        code_points: whether to compare each of the 1,112,064 code points too, inside a word and alone.

    Batches are spread over all processor cores, so both functions are called from several threads.
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
    """Return a function that gives the ids of ``prompt + text`` from ``tokenizers``.

    Args:
        tokenizer: the reference; it must truncate and must not pad.
        prompt: put before every text.
    """

    def token_ids(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch([prompt + text for text in texts])]

    return token_ids


def fused_token_ids(file: Path, *, threads: int = 1) -> TokenIds:
    """Return a function that gives a fused file's token ids: the tokenizer is run alone, without the encoder.

    Args:
        file: a ``query_encoder.onnx``.
        threads: processor threads for the graph.

    Raises:
        BundleError: there is no such file, or it has no inner tensors ``input_ids`` and ``attention_mask``.
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
    """Return a function that gives token ids from an open session, which maps texts to input_ids and attention_mask."""
    feed = feed_of(tokenizer)

    def token_ids(texts: Sequence[str]) -> list[list[int]]:
        ids, mask = tokenizer.run(["input_ids", "attention_mask"], feed(texts))
        lengths = mask.sum(axis=1)
        # A valid mask is ones, then zeros. A row with any other mask is kept whole, so that its ids cannot match.
        prefix = (np.arange(mask.shape[1]) < lengths[:, None]) == (mask == 1)
        whole = [row[:length] if ok else row for row, length, ok in zip(ids, lengths, prefix.all(axis=1), strict=True)]
        return [row.tolist() for row in whole]

    return token_ids
