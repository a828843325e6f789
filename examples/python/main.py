"""Encodes the golden pack with query_encoder.onnx and compares each vector with the pack's, to the last bit.

    python main.py query_encoder.onnx PACK [THREADS]

QueryEncoder is edgeleaf's own: see docs/use.md. It is safe for several threads.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from edgeleaf import QueryEncoder  # first, so that onnxruntime reports nothing to its maker

BATCH = 32


def read_texts(path: Path) -> list[str]:
    """Read texts.bin: a count, then each text's length and UTF-8; little endian."""
    data, at, texts = path.read_bytes(), 4, []
    for _ in range(int.from_bytes(data[:4], "little")):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : end].decode())
        at = end
    return texts


def main(model: str, pack: str, threads: str = "1") -> int:
    """Return the exit code."""
    texts = read_texts(Path(pack, "texts.bin"))
    expected = np.fromfile(Path(pack, "vectors.bin"), "<f4").reshape(len(texts), -1)
    encoder = QueryEncoder.load(model, threads=int(threads))
    equal, times = np.ones(len(texts), bool), []
    for row, text in enumerate(texts):
        start = time.perf_counter()
        vectors = encoder.encode([text])
        times.append(time.perf_counter() - start)
        equal[row] &= vectors.tobytes() == expected[row].tobytes()
    for start in range(0, len(texts), BATCH):
        for row, vector in enumerate(encoder.encode(texts[start : start + BATCH]), start):
            equal[row] &= vector.tobytes() == expected[row].tobytes()
    p50_ms = 1e3 * sorted(times)[len(times) // 2]
    print(json.dumps({"texts": len(texts), "equal": int(equal.sum()), "p50_ms": round(p50_ms, 3)}))
    return 0 if equal.all() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
