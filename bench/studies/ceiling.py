"""The shortest time that an encoder's arithmetic can take on this processor, and how far the encoder is from it.

    python -m bench.studies.ceiling BUNDLE

A query takes at least as long as its matrix products would at the highest rate that onnxruntime's int8 kernel reaches
here, on large matrices that suit it. It also takes at least as long as reading the weights once, at the rate at which a
buffer of their size is read repeatedly. Everything else (tokenizer, normalisations, GELU, softmax, too few rows for the
full rate) counts as free, so nobody can reach the ceiling.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from bench.tables import markdown_table
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.session import session
from edgeleaf.errors import EdgeleafError
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.fuse import encoder_of
from edgeleaf.graph.quantization.calibration import run_inside
from edgeleaf.latency.measure import QUERY_LENGTHS, THREADS
from edgeleaf.latency.process import held_to

SHAPES = ((128, 384, 1536), (512, 384, 1536), (512, 1536, 384), (1024, 1024, 1024))
"""Rows, inputs and outputs of the products that are tried to find the highest rate."""
SECONDS = 0.4
PRODUCTS = frozenset({"MatMulIntegerToFloat", "MatMulInteger", "MatMul", "FusedMatMul", "Gemm"})


def measure(
    bundle: Path, *, threads: Sequence[int] = THREADS, lengths: Sequence[int] = QUERY_LENGTHS
) -> dict[str, Any]:
    """Measure the ceiling, in one fresh process per thread count.

    Args:
        bundle: a bundle folder; its encoder's products are counted.
        threads: thread counts.
        lengths: query lengths in tokens.

    Returns:
        ``weights_mb`` (int8 matrices), ``mmacs`` by length (millions of multiplications), and by thread count
        ``gmacs_per_s``, ``gb_per_s``, and by length ``least_ms`` and ``encoder_ms``, the encoder's own median time
        from token ids.
    """
    encoder = encoder_of(onnx.load(bundle / layout.QUERY_ENCODER))
    weights_bytes = _weight_bytes(encoder)
    macs = {length: multiplications(encoder, length) for length in lengths}
    rows = []
    for count in threads:
        job = {"bundle": str(bundle), "threads": count, "lengths": list(lengths), "weights_bytes": weights_bytes}
        command = [sys.executable, "-m", "bench.studies.ceiling", "--job", json.dumps(job)]
        variables = {**os.environ, "OPENBLAS_NUM_THREADS": str(count), "OMP_NUM_THREADS": str(count)}
        with held_to(count):
            done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise EdgeleafError(f"the ceiling could not be measured: {last}")
        found = json.loads(done.stdout)
        least = {
            length: 1e3 * max(macs[length] / (found["gmacs_per_s"] * 1e9), weights_bytes / (found["gb_per_s"] * 1e9))
            for length in lengths
        }
        rows.append({"threads": count, **found, "least_ms": {str(n): round(ms, 4) for n, ms in least.items()}})
    return {
        "weights_mb": round(weights_bytes / 1e6, 3),
        "mmacs": {str(length): round(count / 1e6, 3) for length, count in macs.items()},
        "threads": rows,
    }


def multiplications(encoder: onnx.ModelProto, tokens: int) -> int:
    """Return how many multiplications one text of this many tokens needs in matrix products."""
    shapes = {name: np.shape(value) for name, value in run_inside(encoder, 1, tokens).items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in encoder.graph.initializer}
    return sum(
        int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
        for node in encoder.graph.node
        if node.op_type in PRODUCTS
    )


def _weight_bytes(encoder: onnx.ModelProto) -> int:
    read = {node.input[1] for node in encoder.graph.node if node.op_type in PRODUCTS}
    return sum(
        int(np.prod(t.dims)) for t in encoder.graph.initializer if t.name in read and t.data_type == TensorProto.INT8
    )


def _worker(job: dict[str, Any]) -> dict[str, Any]:
    """Measure in this process with its thread count: rates, and the encoder's median times."""
    threads = job["threads"]
    model = encoder_of(onnx.load(Path(job["bundle"]) / layout.QUERY_ENCODER)).SerializeToString()
    encoder = session(model, threads=threads)
    times = {}
    for length in job["lengths"]:
        ids = np.random.default_rng(0).integers(1000, 2000, (1, length))
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        times[str(length)] = round(1e3 * _median(lambda feed=feed: encoder.run(None, feed)), 4)  # type: ignore[misc]
    return {
        "gmacs_per_s": round(max(_rate(*shape, threads) for shape in SHAPES) / 1e9, 2),
        "gb_per_s": round(_bandwidth(job["weights_bytes"]) / 1e9, 2),
        "encoder_ms": times,
    }


def _rate(rows: int, inputs: int, outputs: int, threads: int) -> float:
    """Return the multiplications per second of onnxruntime's int8 product, uint8 by a constant int8 matrix."""
    dice = np.random.default_rng(0)
    g = GraphBuilder("rate")
    x = g.input("x", TensorProto.UINT8, ["rows", inputs])
    weight = dice.integers(-64, 64, (inputs, outputs)).astype(np.int8)
    g.output(g.MatMulInteger(x, weight, np.uint8(128)), "y", TensorProto.INT32, ["rows", outputs])
    opened = session(g.model().SerializeToString(), threads=threads)
    feed = {"x": dice.integers(0, 255, (rows, inputs)).astype(np.uint8)}
    return rows * inputs * outputs / _median(lambda: opened.run(None, feed))


def _bandwidth(size: int) -> float:
    """Return the bytes per second that OpenBLAS's dot product, with all threads, reads from ``size`` bytes."""
    one, two = np.ones((2, size // 8), dtype=np.float32)
    return size / _median(lambda: np.dot(one, two))


def _median(call: Callable[[], Any]) -> float:
    """Return the median seconds of a call, after some warm-up calls."""
    for _ in range(3):
        call()
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < SECONDS or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(found: dict[str, Any]) -> str:
    """Return Markdown with one line per thread count and length."""
    rows = []
    for row in found["threads"]:
        for length, least in row["least_ms"].items():
            own = row["encoder_ms"][length]
            times = (f"{least:.3f}", f"{own:.3f}", f"{own / least:.1f}×")
            rows.append([str(row["threads"]), length, str(found["mmacs"][length]), *times])
    columns = ["threads", "tokens", "multiplications, millions", "shortest time, ms", "encoder, ms", "of the shortest"]
    rates = "; ".join(
        f"{row['threads']} threads: {row['gmacs_per_s']} billion int8 multiplications a second, weights read at "
        f"{row['gb_per_s']} GB/s"
        for row in found["threads"]
    )
    return f"{markdown_table(columns, rows)}\n\n{found['weights_mb']} MB of int8 matrices. {rates}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        sys.stdout.write(json.dumps(_worker(json.loads(given.job))))
    elif given.bundle is None:
        parser.error("give a bundle folder")
    else:
        sys.stdout.write(table(measure(given.bundle)))


if __name__ == "__main__":
    main()
