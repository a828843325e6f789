"""What a tokenizer costs as a graph: ``python -m edgeleaf.graph.tokenizers TOKENIZER_JSON``, JSON on standard output.

Times are of one thread, in microseconds, 5th, 50th and 95th percentile; ``tokenizers`` beside them, same texts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RUNNING = "where is my parcel and who can tell how many people live in the unaffordable city of Zürich in 2019 ?"
LENGTHS = (4, 12, 32, 128, 512)
LONG = {
    "english": ((RUNNING + " ") * 100)[:10_000],
    "no space": "abcdefghij" * 1000,
    "ideographs": "㐀中国京" * 2500,
    "hangul": "각한국밝" * 2500,
}


def costs(tokenizer_json: str) -> dict[str, Any]:
    """Return size, load time, time by number of tokens, and peak memory on 64 texts of 10,000 characters."""
    import onnxruntime as ort
    from onnx import TensorProto

    from edgeleaf.graph.builder import GraphBuilder
    from edgeleaf.graph.tokenizers import append_tokenizer, reference_tokenizer

    graph = GraphBuilder("tokenizer")
    text = graph.input("text", TensorProto.STRING, ["batch"])
    for name in append_tokenizer(graph, text, tokenizer_json, max_length=LENGTHS[-1]):
        graph.output(name, name, TensorProto.INT64, ["batch", "sequence"])
    data = graph.model().SerializeToString()
    session = _session(data)
    reference = reference_tokenizer(tokenizer_json, LENGTHS[-1])
    by_tokens = {}
    for tokens in LENGTHS:
        count = next(n for n in range(tokens) if len(reference.encode(_running(n)).ids) >= tokens)
        query = _running(count)
        feed = {"text": np.array([query], dtype=object)}
        by_tokens[tokens] = {
            "characters": len(query),
            "graph_us": _percentiles_us(lambda feed=feed: session.run(None, feed)),  # type: ignore[misc]
            "tokenizers_us": _percentiles_us(lambda query=query: reference.encode(query)),  # type: ignore[misc]
        }
    return {
        "onnxruntime": ort.__version__,
        "nodes": len(graph.nodes),
        "bytes": len(data),
        "load_ms": [round(value / 1000, 1) for value in _percentiles_us(lambda: _session(data), repeats=20)],
        "by_tokens": by_tokens,
        "batch_of_64_texts_of_10000_characters": {name: _long(data, name) for name in LONG},
    }


def _running(words: int) -> str:
    """Text of that many words."""
    once = RUNNING.split()
    return " ".join((once * (1 + words // len(once)))[:words])


def _session(model: bytes | str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _percentiles_us(call: Callable[[], object], *, repeats: int = 1000) -> list[float]:
    times = []
    for _ in range(repeats + repeats // 10):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return [round(float(value) * 1e6, 1) for value in np.percentile(times[repeats // 10 :], [5, 50, 95])]


def _long(data: bytes, name: str) -> dict[str, float]:
    """Run the batch in a fresh process, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.onnx"
        path.write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-m", "edgeleaf.graph.tokenizers", "--long", str(path), name],
            check=True,
            capture_output=True,
            text=True,
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _run_long(path: str, name: str) -> dict[str, float]:
    session = _session(path)
    session.run(None, {"text": np.array(["warm"], dtype=object)})
    before, start = _peak_mb(), time.perf_counter()
    session.run(None, {"text": np.array([LONG[name]] * 64, dtype=object)})
    return {"seconds": round(time.perf_counter() - start, 2), "peak_mb": _peak_mb(), "peak_before_mb": before}


def _peak_mb() -> int:
    """This process's peak resident memory; Linux only (getrusage would report the parent's, if that is larger)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def main(arguments: list[str]) -> int:
    """Print the costs; 2 for bad input."""
    if len(arguments) == 3 and arguments[0] == "--long":
        found: dict[str, Any] = dict(_run_long(arguments[1], arguments[2]))
    elif len(arguments) == 1 and Path(arguments[0]).is_file():
        found = costs(Path(arguments[0]).read_text(encoding="utf-8"))
    else:
        sys.stderr.write("usage: python -m edgeleaf.graph.tokenizers TOKENIZER_JSON\n")
        return 2
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
