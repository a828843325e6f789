"""The golden pack: texts, token ids and vectors that any port of the encoder must reproduce."""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from edgeleaf.bundle.feed import Input, feed_of
from edgeleaf.bundle.manifest import GOLDEN, QUERY_ENCODER
from edgeleaf.bundle.session import session
from edgeleaf.errors import BundleError, EdgeleafError, fault_line, reason_of
from edgeleaf.records import RecordError, inside, parse_json, read_bytes, record

COSINE_MIN = 0.9999
COSINE_MEAN_MIN = 0.99999
MOST_PACK_BYTES = 256 << 20
_BATCH_SIZE = 64
THINNEST_BATCH = 8
TOKENIZER = "tokenizer.onnx"
PARITY = "parity"
GOLDEN_HARD_TEXTS = (
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
"""Texts of every golden pack, besides real queries and texts of known lengths."""


class _Header(TypedDict):
    """The first line of a pack."""

    schema_version: int
    cosine_min: NotRequired[float]
    cosine_mean_min: NotRequired[float]
    empty_batch: NotRequired[bool]
    input: NotRequired[Input]


class _Entry(TypedDict):
    """One text, with its expected token ids and vector."""

    text: str
    input_ids: list[int]
    embedding: NotRequired[list[float]]


def read_golden(bundle: Path) -> list[dict[str, Any]]:
    """Return the entries of a bundle's golden pack without the header; each has text, input_ids and embedding.

    Raises:
        BundleError: no such file, or a damaged line.
    """
    return [entry for entry in _entries(bundle / GOLDEN) if "schema_version" not in entry]


def verify(pack: Path, *, every: int = 1) -> dict[str, Any]:
    """Run a pack in this Python's onnxruntime and compare the results with the expected ones.

    Embeddings are computed one by one and in one batch. Token ids are computed by ``tokenizer.onnx``, in batches of
    mixed lengths; for a folder without that file, such as a bundle, only embeddings are compared.

    Args:
        pack: a folder with ``query_encoder.onnx`` and ``golden.jsonl``, and ``tokenizer.onnx`` and ``parity/*.jsonl``
            if token ids are to be compared.
        every: of each parity set, take the first text and then every ``every``-th one. All golden texts are taken, but
            the batch, which costs most, holds only every ``every``-th of them, or every eighth if ``every`` is above 8.

    Returns:
        ``{"passed", "runtime", "golden": {"texts", "id_mismatches", "cosine_min", "cosine_mean", "cosine_mismatches",
        "empty_batch"}, "parity": {NAME: {"texts", "mismatches"}}}``. ``cosine_mismatches`` counts the texts below the
        header's ``cosine_min``, alone or in the batch; ``id_mismatches`` is ``None`` if token ids were not checked.
        ``empty_batch`` tells whether no texts give float32 [0, dim]; ``None`` for packs of older files, which cannot.

    Raises:
        BundleError: ``every`` below 1, a file that is missing or damaged, or one that onnxruntime cannot open or run.
    """
    import onnxruntime

    if every < 1:
        raise BundleError(f"every is {every}; a whole number from 1 is needed")
    if not (pack / QUERY_ENCODER).is_file():
        raise BundleError(f"{pack / QUERY_ENCODER}: missing; give a bundle, or a pack that tests/ports.py wrote")
    golden = read_golden(pack)
    if not golden or any("embedding" not in entry for entry in golden):
        raise BundleError(f"{pack / GOLDEN}: no texts, or texts without embedding; build or copy the bundle again")
    header = next((entry for entry in _entries(pack / GOLDEN) if "schema_version" in entry), {})
    encoder = session(pack / QUERY_ENCODER, threads=1)
    cosines = _cosines(encoder, pack, golden, min(every, THINNEST_BATCH))
    report: dict[str, Any] = {
        "runtime": {
            "name": "onnxruntime",
            "version": onnxruntime.__version__,
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        "golden": {
            "texts": len(golden),
            "id_mismatches": None,
            "cosine_min": round(float(cosines.min()), 6),
            "cosine_mean": round(float(cosines.mean()), 6),
            "cosine_mismatches": int((cosines < header.get("cosine_min", COSINE_MIN)).sum()),
            "empty_batch": _empty_batch(encoder, len(golden[0]["embedding"]))
            if header.get("empty_batch")
            else None,  # an older file would end this process
        },
        "parity": {},
    }
    if (pack / TOKENIZER).is_file():
        tokenizer = session(pack / TOKENIZER, threads=1)
        report["golden"]["id_mismatches"] = _compare_ids(tokenizer, golden)["mismatches"]
        for file in sorted((pack / PARITY).glob("*.jsonl")):
            report["parity"][file.stem] = _compare_ids(tokenizer, islice(_entries(file), 0, None, every))
    found = report["golden"]
    wrong = found["cosine_mismatches"] + (found["id_mismatches"] or 0)
    wrong += sum(counts["mismatches"] for counts in report["parity"].values())
    near = bool(cosines.mean() >= header.get("cosine_mean_min", 0))
    passed = wrong == 0 and near and found["empty_batch"] is not False
    return {"passed": passed, **report}


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    """Yield a file's header, if it has one, and its entries, each of which has at least text and input_ids."""
    try:
        if file.is_symlink():
            inside(file.parent, file.name)
        for line in read_bytes(file, most_bytes=MOST_PACK_BYTES).split(b"\n"):
            if not line:
                continue
            entry = parse_json(line)
            if not isinstance(entry, dict):
                raise RecordError("a line that is not a table")
            yield dict(record(_Header if "schema_version" in entry else _Entry, entry))
        return
    except OSError as error:
        raise BundleError(f"{file}: {_reason(error)}; build or copy the bundle again") from None
    except RecordError as error:
        reason = re.sub(r"^(\w+) is missing$", r"a line without \1", str(error))
    raise BundleError(f"{file}: damaged ({reason}); build or copy the bundle again")


def _reason(error: OSError) -> str:
    return "missing" if isinstance(error, FileNotFoundError) else error.strerror or str(error)


def _cosines(encoder: Any, pack: Path, golden: Sequence[dict[str, Any]], every: int) -> Any:
    """Return float64 [texts]: the lower of each text's cosines, alone and in a batch, to its embedding in the pack.

    The batch holds every ``every``-th text, short and long together.
    """
    texts = [entry["text"] for entry in golden]
    try:
        expected = np.array([entry["embedding"] for entry in golden], dtype=np.float64)
    except (ValueError, TypeError):
        raise BundleError(f"{pack / GOLDEN}: damaged (embeddings of several widths)") from None
    alone = np.concatenate([_run(encoder, [text], ["embedding"])[0] for text in texts])
    if alone.shape != expected.shape:
        shapes = f"gives {list(alone.shape)} and {GOLDEN} holds {list(expected.shape)}"
        raise BundleError(f"{pack / QUERY_ENCODER} {shapes}: they are not of one bundle")
    cosines = _cosine(alone, expected)
    batch = _run(encoder, texts[::every], ["embedding"])[0]
    cosines[::every] = np.minimum(cosines[::every], _cosine(batch, expected[::every]))
    return cosines


def _empty_batch(encoder: Any, dim: int) -> bool:
    """Return whether no texts give no vectors: float32 [0, dim]."""
    (found,) = _run(encoder, [], ["embedding"])
    return bool(found.shape == (0, dim) and found.dtype == np.float32)


def _cosine(vectors: Any, expected: Any) -> Any:
    """Return the cosine of each pair of rows; 0 if a vector is zero or not finite."""
    with np.errstate(all="ignore"):
        vectors = vectors.astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        return np.nan_to_num((vectors * expected).sum(axis=1) / norms, nan=0.0, posinf=0.0, neginf=0.0)


def _compare_ids(tokenizer: Any, entries: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Count the texts, and those whose token ids differ from the expected ones."""
    texts = wrong = 0
    rows = iter(entries)
    while batch := list(islice(rows, _BATCH_SIZE)):
        ids, mask = _run(tokenizer, [entry["text"] for entry in batch], ["input_ids", "attention_mask"])
        found = [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)]
        texts += len(batch)
        wrong += sum(row != entry["input_ids"] for row, entry in zip(found, batch, strict=True))
    return {"texts": texts, "mismatches": wrong}


def _run(model: Any, texts: list[str], outputs: list[str]) -> list[Any]:
    try:
        results: list[Any] = model.run(outputs, feed_of(model)(texts))
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        reason = " ".join(str(error).split())
        raise BundleError(f"onnxruntime cannot take {', '.join(outputs)} from a text: {reason_of(reason)}") from None
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Verify a pack and print the report as JSON; return 0 if it passes, 1 for a mismatch, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m edgeleaf.bundle.golden", description="Verify a bundle or a pack.")
    parser.add_argument("pack", type=Path, help="folder that tests/ports.py wrote, or a bundle (embeddings only)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th text of each parity set only")
    options = parser.parse_args(argv)
    try:
        report = verify(options.pack, every=options.every)
    except EdgeleafError as error:
        sys.stderr.write(f"edgeleaf: {error}\n")
        return error.exit_code
    except Exception as error:
        sys.stderr.write(f"{fault_line(error)}\n")
        return 2
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
