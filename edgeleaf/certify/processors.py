"""Does the same file give the same vectors on every kind of processor?

Other processors are emulated (:mod:`edgeleaf.emulation`). They run
``python -m edgeleaf.certify.processors FILE TEXTS VECTORS``, which needs only numpy and onnxruntime.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

COMPARED_QUERIES = 96
"""Queries that are run on each processor: they take half a minute to a minute, and opening the file as long again."""
TIMEOUT_S, SLOWDOWN = 600.0, 1000.0
"""A run may take this many seconds plus this multiple of its time here; it takes some 20 to 100 times as long."""


@dataclass(frozen=True)
class ProcessorReport:
    """The same queries on another processor, compared with this machine's own run.

    Args:
        name: as in ``edgeleaf.emulation.processors.PROCESSORS``; ``native`` is this machine.
        queries: how many were compared.
        cosine_min, cosine_mean: cosine of a query's vector there to its vector here.
        identical: how many vectors are equal to the last bit.
        worst_text: the query of the minimum.
    """

    name: str
    queries: int
    cosine_min: float
    cosine_mean: float
    identical: int
    worst_text: str


def check_names(names: Sequence[str]) -> None:
    """Check that all of these processors can be emulated here.

    Raises:
        EmulationError: an unknown processor, or one whose emulation is not set up; the message tells how to set it up.
    """
    from edgeleaf.emulation.processors import missing
    from edgeleaf.errors import EmulationError

    if lacking := missing(names):
        raise EmulationError(f"not set up: {'; '.join(lacking)}; to fetch it: python -m edgeleaf.emulation --setup")


def compare(file: Path, queries: Sequence[str], names: Sequence[str]) -> tuple[ProcessorReport, ...]:
    """Encode queries here and on other processors.

    Args:
        file: a fused ``query_encoder.onnx``.
        queries: a sample of all lengths is taken, and texts that are hard for a tokenizer are added.
        names: names of :data:`edgeleaf.emulation.processors.PROCESSORS`.

    Raises:
        EmulationError: like :func:`check_names`, or a run that fails or does not end.
    """
    from edgeleaf import progress
    from edgeleaf.emulation.processors import prepare
    from edgeleaf.errors import EmulationError, reason_of
    from edgeleaf.vectors import cosine_rows

    check_names(names)
    texts = sample(queries)
    start = time.perf_counter()
    here = encode_alone(file, texts)
    limit_s = round(TIMEOUT_S + SLOWDOWN * (time.perf_counter() - start))
    emulation = prepare(names)
    reports = []
    with (
        tempfile.TemporaryDirectory(prefix="edgeleaf-") as scratch,
        progress.bar("check: processors", len(names)) as advance,
    ):
        given, got = Path(scratch) / "texts.json", Path(scratch) / "vectors.npy"
        given.write_text(json.dumps(texts), encoding="utf-8")
        for name in names:
            got.unlink(missing_ok=True)
            arguments = ["-P", "-m", "edgeleaf.certify.processors", str(file.absolute()), str(given), str(got)]
            result = emulation.run(name, arguments, timeout_s=limit_s)
            if result.returncode or not got.is_file():
                reason = (result.stderr.strip() or f"exit status {result.returncode}").splitlines()[-1]
                raise EmulationError(f"{name}: {file} does not run there: {reason_of(reason)}")
            there = np.load(got)
            cosines = cosine_rows(there, here)
            worst = int(cosines.argmin())
            reports.append(
                ProcessorReport(
                    name=name,
                    queries=len(texts),
                    cosine_min=round(float(cosines[worst]), 8),
                    cosine_mean=round(float(cosines.mean()), 8),
                    identical=int((there == here).all(axis=1).sum()),
                    worst_text=texts[worst],
                )
            )
            advance(1)
    return tuple(reports)


def sample(queries: Sequence[str]) -> list[str]:
    """Return at most :data:`COMPARED_QUERIES` texts: queries of all lengths, and some that are hard for a tokenizer."""
    from edgeleaf.bundle.golden import GOLDEN_HARD_TEXTS

    by_length = sorted(dict.fromkeys(queries), key=lambda text: (len(text), text))
    hard = GOLDEN_HARD_TEXTS[: COMPARED_QUERIES // 4]
    places = np.unique(
        np.linspace(0, len(by_length) - 1, min(COMPARED_QUERIES - len(hard), len(by_length))).round().astype(int)
    )
    return list(dict.fromkeys([*(by_length[place] for place in places), *hard]))


def encode_alone(file: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Encode texts one at a time with a fused file; return float32 [len(texts), dim]."""
    from edgeleaf.bundle.feed import feed_of
    from edgeleaf.bundle.session import session

    fused = session(file, threads=1)
    feed = feed_of(fused)
    rows = [fused.run(["embedding"], feed([text]))[0] for text in texts]
    return np.asarray(np.concatenate(rows), dtype=np.float32)


if __name__ == "__main__":
    onnx_file, texts_file, vectors_file = map(Path, sys.argv[1:])
    np.save(vectors_file, encode_alone(onnx_file, json.loads(texts_file.read_text(encoding="utf-8"))))
