"""Times one system in this process: a job as JSON on standard input, a result as JSON on standard output.

``python -m edgeleaf.latency_worker`` is started by ``edgeleaf.latency``, once a system, thread count and round. The
fused file needs numpy and onnxruntime here, nothing else.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

WARMUP_VISITS = 3
LEAST_REPEATS = 3
FUSED, STUDENT, TEACHER = "fused", "student", "teacher"


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one system in this process: imports, load to first vector, then every length in random order."""
    texts: dict[str, list[str]] = job["texts"]
    first = next(iter(texts.values()))[0]
    load = _LOADERS[job["system"]]()
    import_s = time.time() - job["spawned"]
    start = time.perf_counter()
    encode = load(job)
    encode(first)
    loaded = time.perf_counter()

    dice = random.Random(job["seed"])
    for visit in range(WARMUP_VISITS):
        if visit and time.perf_counter() - loaded > job["budget_s"] / 4:
            break
        for choice in texts.values():
            encode(dice.choice(choice))
    times_ms: dict[str, list[float]] = {tokens: [] for tokens in texts}
    visits = list(texts)
    processor, wall = time.process_time(), time.perf_counter()
    for repeat in range(job["repeats"]):
        if repeat >= LEAST_REPEATS and time.perf_counter() - wall > job["budget_s"]:
            break
        dice.shuffle(visits)
        for tokens in visits:
            text = dice.choice(texts[tokens])
            begin = time.perf_counter()
            encode(text)
            times_ms[tokens].append(round(1000 * (time.perf_counter() - begin), 4))
    busy = (time.process_time() - processor) / (time.perf_counter() - wall)
    return {
        "import_ms": round(1000 * import_s, 1),
        "load_ms": round(1000 * (loaded - start), 1),
        "peak_rss_mb": peak_rss_mb(),
        "busy_threads": round(busy, 2),
        "times_ms": times_ms,
    }


Load = Callable[[Mapping[str, Any]], Callable[[str], Any]]


def _fused() -> Load:
    import onnxruntime  # noqa: F401  # its import is not the encoder's load

    from edgeleaf.encoder import QueryEncoder

    def load(job: Mapping[str, Any]) -> Callable[[str], Any]:
        encoder = QueryEncoder.load(job["path"], threads=job["threads"])
        return lambda text: encoder.encode([text])

    return load


def _sentence_transformer() -> Load:
    import torch
    from sentence_transformers import SentenceTransformer

    def load(job: Mapping[str, Any]) -> Callable[[str], Any]:
        torch.set_num_threads(job["threads"])
        torch.set_num_interop_threads(1)
        model = SentenceTransformer(job["path"], device="cpu", local_files_only=True)
        return lambda text: model.encode([text], prompt=job["prompt"], show_progress_bar=False)

    return load


_LOADERS: dict[str, Callable[[], Load]] = {
    FUSED: _fused,
    STUDENT: _sentence_transformer,
    TEACHER: _sentence_transformer,
}


def peak_rss_mb() -> float | None:
    """Peak resident memory of this process in 10^6 bytes, where the system tells."""
    try:
        # ru_maxrss of a forked process starts at its parent's; VmHWM is this program's own.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except OSError:
        pass
    if sys.platform != "darwin":
        return None
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)


def _main() -> None:
    job = json.load(sys.stdin)
    # Whatever a library prints must not mix with the result.
    result_stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    result = work(job)
    with result_stream:
        json.dump(result, result_stream)


if __name__ == "__main__":
    _main()
