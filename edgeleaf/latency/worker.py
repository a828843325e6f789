"""Times one system in this process: JSON requests on standard input, replies on standard output, one per line.

Started by ``edgeleaf.latency.runner`` as ``python -P worker.py ADAPTER``, where ADAPTER is one of
:data:`BUILT_IN` or the path of a Python file with ``load(path, *, threads, prompt, **options) -> encode``; ``encode``
takes a list of strings and returns float32 [n, dim]. Needs the standard library and the imports of its adapter, because
this file also runs in environments without edgeleaf. ``bench/peers/worker.mjs`` is the same for Node.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FUSED, SENTENCE_TRANSFORMER = "fused", "sentence-transformer"

_Encode = Callable[[list[str]], Any]
Load = Callable[..., _Encode]


class TimingServer:
    """One system: loads it once, then encodes and times it. Each method answers one kind of request."""

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        self.encode: _Encode | None = None

    def load(
        self, *, path: str, threads: int, prompt: str, text: str, spawned: float, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Import, load and encode one text. ``spawned`` is when this process was started, by ``time.time``."""
        load = BUILT_IN[self.adapter]() if self.adapter in BUILT_IN else _module(self.adapter).load
        imported = time.time()
        self.encode = load(path, threads=threads, prompt=prompt, **options)
        vectors = self.encode([text])
        first = time.time()
        return {
            "load_ms": round(1000 * (first - imported), 1),
            "cold_ms": round(1000 * (first - spawned), 1),
            "dim": int(vectors.shape[1]),
        }

    def time(self, *, texts: Mapping[str, list[str]], passes: int, seconds: float, seed: int) -> dict[str, Any]:
        """Time single texts: ``passes`` times one of each length, in random order, at least one pass.

        ``seconds`` limits the visit: no pass begins later.
        """
        encode, dice, visits = self._ready(), random.Random(seed), list(texts)
        times_ms: dict[str, list[float]] = {tokens: [] for tokens in texts}
        cpu_ms = dict.fromkeys(texts, 0.0)
        for tokens in visits:  # the state in which other systems left the caches must not count
            encode([dice.choice(texts[tokens])])
        start = time.perf_counter()
        for turn in range(passes):
            if turn and time.perf_counter() - start > seconds:
                break
            dice.shuffle(visits)
            for tokens in visits:
                text = [dice.choice(texts[tokens])]
                busy, begin = time.process_time(), time.perf_counter()
                encode(text)
                times_ms[tokens].append(round(1000 * (time.perf_counter() - begin), 4))
                cpu_ms[tokens] += 1000 * (time.process_time() - busy)
        return {"times_ms": times_ms, "cpu_ms": cpu_ms}

    def batches(self, *, texts: list[str], size: int, seconds: float) -> dict[str, Any]:
        """Time batches of ``size`` texts of mixed lengths, each at least once, until ``seconds`` have passed."""
        encode = self._ready()
        encode(texts[:size])
        done, busy, start = 0, time.process_time(), time.perf_counter()
        while not done or time.perf_counter() - start < seconds:
            for begin in range(0, len(texts), size):
                encode(texts[begin : begin + size])
            done += len(texts)
        wall = time.perf_counter() - start
        return {"queries": done, "wall_s": round(wall, 5), "cpu_s": round(time.process_time() - busy, 5)}

    def vectors(self, *, texts: list[str]) -> dict[str, Any]:
        """Encode texts one by one; return float32 rows, little-endian, in base64."""
        encode = self._ready()
        rows = b"".join(encode([text]).astype("<f4").tobytes() for text in texts)
        return {"vectors": base64.b64encode(rows).decode("ascii")}

    def memory(self) -> dict[str, Any]:
        return {"peak_rss_mb": peak_rss_mb()}

    def _ready(self) -> _Encode:
        if self.encode is None:
            raise RuntimeError("nothing is loaded")
        return self.encode


def _module(path: str) -> Any:
    """Import an adapter by its path; modules beside it are searched after all packages."""
    sys.path.append(str(Path(path).parent))
    spec = importlib.util.spec_from_file_location("adapter", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fused() -> Load:
    from edgeleaf import quiet
    from edgeleaf.bundle.encoder import QueryEncoder

    quiet.onnxruntime()  # its import does not count as loading the encoder

    def load(path: str, *, threads: int, prompt: str) -> _Encode:
        # The prompt is inside the file.
        return QueryEncoder.load(path, threads=threads).encode

    return load


def _sentence_transformer() -> Load:
    import torch
    from sentence_transformers import SentenceTransformer

    def load(path: str, *, threads: int, prompt: str) -> _Encode:
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        model = SentenceTransformer(path, device="cpu", local_files_only=True, trust_remote_code=False)
        return lambda texts: model.encode(texts, prompt=prompt, show_progress_bar=False)

    return load


BUILT_IN: dict[str, Callable[[], Load]] = {FUSED: _fused, SENTENCE_TRANSFORMER: _sentence_transformer}


def peak_rss_mb() -> float | None:
    """Return the peak resident memory of this process in 10^6 bytes, if the system tells."""
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
    # The output of libraries must not mix with the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = TimingServer(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        reply = getattr(worker, request.pop("do"))(**request)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    _main()
