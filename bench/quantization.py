"""What our int8 does beside plain dynamic int8: fidelity, sameness in a batch, latency, size. Prints one table.

    python -m bench.quantization MODEL QUERIES [--queries 1000]

MODEL is a sentence-transformers model, QUERIES a file with a text a line (.txt, .tsv, .jsonl, .gz).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from edgeleaf import models
from edgeleaf.graph.export import OUTPUT, export_onnx, features
from edgeleaf.graph.quantize import quantize_int8
from edgeleaf.student import load_sentence_transformer
from edgeleaf.texts import FilesSource, collect

CROWD = 60
ROUNDS = 40


def plain_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxruntime's dynamic quantisation, per channel, embedding tables included: what everybody ships."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in.onnx", Path(scratch) / "out.onnx"
        onnx.save(model, source)
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # fused operators defeat its shape inference
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8, extra_options=options)
        return onnx.load(target)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("queries", type=Path)
    parser.add_argument("--queries", dest="count", type=int, default=1000)
    options = parser.parse_args()

    folder = models.resolve(options.model)
    torch_model = load_sentence_transformer(folder, max_length=128)
    source = FilesSource((str(options.queries.absolute()),), "query")
    corpus = collect([source], limit=options.count, held_out_queries=0, held_out_documents=0, seed=0, base=Path())
    texts = [text.text for text in corpus.train]
    fp32 = export_onnx(folder)
    kinds = {"fp32": fp32, "plain dynamic int8": plain_dynamic(fp32), "per-row int8 (ours)": quantize_int8(fp32).model}
    sessions = {name: session(model) for name, model in kinds.items()}
    reference = torch_model.encode(texts)
    times = latencies({name: timed(s, torch_model, texts) for name, s in sessions.items()})

    table = Table(title=f"{options.model}, {len(texts)} queries, one thread")
    for column in ("", "MB", "cosine to torch: mean", "p01", "min", f"to itself among {CROWD}: min", "p50 ms"):
        table.add_column(column, justify="right" if column else "left")
    for name, s in sessions.items():
        alone, crowded = encode(s, torch_model, texts, 1), encode(s, torch_model, texts, CROWD)
        cosine = np.sum(alone * reference, axis=1)
        table.add_row(
            name,
            f"{kinds[name].ByteSize() / 1e6:.1f}",
            *(f"{value:.4f}" for value in (cosine.mean(), np.percentile(cosine, 1), cosine.min())),
            f"{np.sum(alone * crowded, axis=1).min():.7f}",
            f"{np.median(times[name]) * 1e3:.2f}",
        )
    Console(width=120).print(table)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def encode(s: ort.InferenceSession, torch_model: Any, texts: Sequence[str], batch: int) -> np.ndarray:
    """Encode in batches; unit vectors, float32 [len(texts), dim]."""
    parts = [s.run([OUTPUT], features(torch_model, texts[i : i + batch]))[0] for i in range(0, len(texts), batch)]
    return np.concatenate(parts)


def timed(s: ort.InferenceSession, torch_model: Any, texts: Sequence[str]) -> Callable[[int], None]:
    """Return a call that encodes the i-th query alone, tokenised before."""
    inputs = [features(torch_model, [text]) for text in texts[:50]]
    return lambda i: s.run([OUTPUT], inputs[i % len(inputs)]) and None


def latencies(calls: dict[str, Callable[[int], None]]) -> dict[str, list[float]]:
    """Time the calls in turn, so that a drifting machine hurts all alike; seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(10 * ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call(i)
            times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
