"""Compares ways to quantise an encoder: size, fidelity, equality in batches and on other processors, latency.

    python -m bench.studies.quantization MODEL QUERIES CALIBRATION -o DIR [--processors x86-64-v3,armv8.2-dotprod]
        [--kinds fp32,int8]

MODEL is a sentence-transformers model; QUERIES and CALIBRATION are files with one text per line (.txt, .tsv, .jsonl,
.gz). Writes table.md, results.json and frontier.png; the models that it builds stay in DIR.work for the next run.
Encoders get token ids, so no tokenizer is measured. Times are the processor's own, on one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from edgeleaf import progress
from edgeleaf.emulation import processors as emulation
from edgeleaf.files import whole_folder, write_json, write_text
from edgeleaf.graph.export import export_onnx
from edgeleaf.graph.exporters import OUTPUT, optimum_graph
from edgeleaf.graph.quantization import rewriter, rounding, scales
from edgeleaf.graph.quantization.half import to_half
from edgeleaf.graph.quantization.quantize import quantize
from edgeleaf.graph.quantization.weights import quantize_weights
from edgeleaf.graph.tokenizers.spec import reference_tokenizer
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.models.resolve import resolve
from edgeleaf.recipe.sources import FilesSource
from edgeleaf.texts.corpus import collect

WINDOW, CROWD, ABROAD, ROUNDS = 128, 60, 12, 120
LENGTHS = (8, 16, 32)
FLOATS = ("fp32", "fp16")
"""These are not run on other processors: emulation takes minutes, and floats differ only in the last bits."""
PLAIN = "onnxruntime dynamic int8"
GUEST = """
import json, sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 1; options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
names = [i.name for i in session.get_inputs()]
rows = []
for ids in json.load(open(sys.argv[2])):
    ids = np.array([ids]); feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    rows.append(session.run(["sentence_embedding"], {name: feed[name] for name in names})[0][0])
np.save(sys.argv[3], np.array(rows))
"""
Ids = list[list[int]]


@dataclass(frozen=True)
class Given:
    """The inputs of a quantiser.

    Args:
        fp32: edgeleaf's export.
        raw: makes optimum's own export, which its quantiser needs because it cannot read fused operators.
        texts: token ids to calibrate on.
    """

    fp32: onnx.ModelProto
    raw: Callable[[], onnx.ModelProto]
    texts: Ids


Make = Callable[[Given, Path], onnx.ModelProto]


def dynamic(*, seven_bits: bool = False) -> Make:
    """onnxruntime's dynamic quantisation, one scale per column, tables included; seven bits avoid saturation."""

    def make(given: Given, scratch: Path) -> onnx.ModelProto:
        onnx.save(given.fp32, scratch / "in.onnx")
        quantize_dynamically(scratch / "in.onnx", scratch / "out.onnx", seven_bits=seven_bits)
        return onnx.load(scratch / "out.onnx")

    return make


def quantize_dynamically(source: Path, target: Path, *, seven_bits: bool = False) -> None:
    """Write onnxruntime's dynamic quantisation of one of edgeleaf's exports, one scale per column."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        per_channel=True,
        reduce_range=seven_bits,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # fused operators defeat its shape inference
    )


def static(given: Given, scratch: Path) -> onnx.ModelProto:
    """onnxruntime's static quantisation, min-max calibration, QDQ."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(given.texts[:200])

        def get_next(self) -> dict[str, Any] | None:
            text = next(self.rest, None)
            ids = np.array([text or [0]])
            return None if text is None else {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    onnx.save(given.fp32, scratch / "in.onnx")
    quantize_static(
        scratch / "in.onnx",
        scratch / "out.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )
    return onnx.load(scratch / "out.onnx")


def blocks(bits: int, *, level: int = 4) -> Make:
    """onnxruntime's MatMulNBits, blocks of 32; tables stay in float32. Arithmetic: int8 at level 4, float32 at 1."""

    def make(given: Given, _: Path) -> onnx.ModelProto:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        copy = onnx.ModelProto()
        copy.CopyFrom(given.fp32)
        quantizer = MatMulNBitsQuantizer(copy, bits=bits, block_size=32, is_symmetric=True, accuracy_level=level)
        quantizer.process()
        made: onnx.ModelProto = quantizer.model.model
        return made

    return make


def preset(name: str) -> Make:
    """A dynamic preset of optimum, which is what sentence-transformers' export_dynamic_quantized_onnx_model applies."""

    def make(given: Given, scratch: Path) -> onnx.ModelProto:
        from optimum.onnxruntime import ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig

        (scratch / "model").mkdir()
        onnx.save(given.raw(), scratch / "model" / "model.onnx")
        (scratch / "model" / "config.json").write_text('{"model_type": "bert"}')
        quantizer = ORTQuantizer.from_pretrained(scratch / "model", file_name="model.onnx")
        config = getattr(AutoQuantizationConfig, name)(is_static=False, per_channel=False)
        quantizer.quantize(save_dir=scratch / "made", quantization_config=config)
        return onnx.load(next((scratch / "made").glob("*.onnx")))

    return make


def edgeleaf(bits: int, **changes: Any) -> Make:
    """Our quantisation, or ours with parts left out, given by names in ``edgeleaf.graph.quantization``."""

    def make(given: Given, _: Path) -> onnx.ModelProto:
        with changed(**changes):
            return quantize(given.fp32, given.texts, bits=bits).model

    return make


def of_weights(bits: int) -> Make:
    """Our presets of weights alone."""

    def make(given: Given, _: Path) -> onnx.ModelProto:
        return quantize_weights(given.fp32, given.texts, bits=bits).model

    return make


@contextmanager
def changed(**changes: Any) -> Iterator[None]:
    """Change constants or functions of the quantiser temporarily."""
    places = [(next(part for part in (rewriter, scales, rounding) if hasattr(part, name)), name) for name in changes]
    before = [getattr(module, name) for module, name in places]
    try:
        for (module, name), value in zip(places, changes.values(), strict=True):
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


def nearest(weight: Any, moments: Any = None) -> Any:
    """Round to nearest, whatever the inputs."""
    return rounding.round_columns(weight)


KINDS: dict[str, Make] = {
    "fp32": lambda given, _: given.fp32,
    "fp16": lambda given, _: to_half(given.fp32),
    PLAIN: dynamic(),
    f"{PLAIN}, seven-bit weights": dynamic(seven_bits=True),
    "optimum avx512_vnni": preset("avx512_vnni"),
    "optimum avx2": preset("avx2"),
    "optimum arm64": preset("arm64"),
    "static QDQ, min-max": static,
    "MatMulNBits 8": blocks(8),
    "MatMulNBits 4": blocks(4),
    "MatMulNBits 8 in float32": blocks(8, level=1),
    "edgeleaf int8-weights": of_weights(8),
    "edgeleaf int4-weights": of_weights(4),
    "edgeleaf int8": edgeleaf(8),
    "edgeleaf int8, no smoothing": edgeleaf(8, NORM_STRENGTH=0.0, ATTENTION_STRENGTH=0.0),
    "edgeleaf int8, to nearest": edgeleaf(8, round_columns=nearest),
    "edgeleaf int8, no refit": edgeleaf(8, REFIT_RIDGE=1e12),
    "edgeleaf int4": edgeleaf(4),
    "edgeleaf int4, no refit": edgeleaf(4, REFIT_RIDGE=1e12),
}


def main() -> None:
    """Measure, and write table, results and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("queries", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--queries", dest="count", type=int, default=1000)
    parser.add_argument("--processors", default="x86-64-v3,armv8.2-dotprod")
    parser.add_argument("--kinds", help=f"names, separated by commas; {PLAIN} and fp32 are always there")
    options = parser.parse_args()
    progress.show()

    folder = resolve(options.model)
    torch_model = load_sentence_transformer(folder, max_length=WINDOW)
    tokenizer = reference_tokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"), WINDOW)

    def read(file: Path, count: int, seed: int) -> Ids:
        source = FilesSource((str(file.absolute()),), "query")
        found = collect([source], limit=count, held_out_queries=0, held_out_documents=0, seed=seed, base=Path())
        return [encoding.ids for encoding in tokenizer.encode_batch([text.text for text in found.train])]

    queries, calibration = read(options.queries, options.count, 0), read(options.calibration, 3000, 1)
    queries = [ids for ids in queries if ids not in calibration]
    del torch_model
    fp32 = export_onnx(folder)

    def raw() -> onnx.ModelProto:
        with tempfile.TemporaryDirectory() as scratch:
            return optimum_graph(folder, Path(scratch))

    given = Given(fp32, raw, calibration)
    names = [name for name in options.processors.split(",") if name]
    prepared = emulation.prepare(names)
    work = options.output.with_name(f"{options.output.name}.work")
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = build(given, work, options.kinds.split(",") if options.kinds else list(KINDS))
        sessions = {name: session(file) for name, file in files.items()}
        times = latencies(sessions)
        reference = encode(sessions["fp32"], queries, 1)
        results = {}
        for name, opened in sessions.items():
            progress.say(name)
            alone = encode(opened, queries, 1)
            results[name] = {
                "mb": round(files[name].stat().st_size / 1e6, 1),
                "fidelity": summary(alone, reference),
                "batch_min": low(encode(opened, queries[:240], CROWD), alone[:240]),
                "padding_min": low(encode(opened, queries[:100], 1, pad=WINDOW), alone[:100]),
                "processors_min": {
                    processor: abroad(prepared, processor, files[name], queries[:ABROAD], alone[:ABROAD], Path(scratch))
                    for processor in names
                    if name not in FLOATS
                },
                "p50_ms": {length: round(times[length][name], 3) for length in LENGTHS},
                "of_plain": {length: round(times[length][name] / times[length][PLAIN], 3) for length in LENGTHS},
            }
    with whole_folder(options.output) as new:
        write_json(new / "results.json", {"model": options.model, "queries": len(queries), "kinds": results})
        write_text(new / "table.md", table(results, names))
        plot(results, new / "frontier.png")
    sys.stdout.write(table(results, names))


def build(given: Given, folder: Path, kinds: Sequence[str]) -> dict[str, Path]:
    """Make every kind; one that fails is left out, with the reason on standard error."""
    files = {}
    for number, (name, make) in enumerate(KINDS.items()):
        if name not in (*kinds, PLAIN, "fp32"):
            continue
        files[name] = folder / f"{number}.onnx"
        with tempfile.TemporaryDirectory() as scratch:
            try:
                if not files[name].is_file():
                    onnx.save(make(given, Path(scratch)), files[name])
                session(files[name])
            except Exception as error:  # quantisers of other projects raise errors of their own
                files.pop(name).unlink(missing_ok=True)
                progress.say(f"{name}: left out: {' '.join(str(error).split())[:160]}")
    return files


def session(file: Path) -> ort.InferenceSession:
    """Open a model on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def encode(opened: ort.InferenceSession, texts: Ids, batch: int, pad: int = 0) -> np.ndarray:
    """Encode in batches, padded to the longest or to ``pad``; unit vectors, float32 [len(texts), dim]."""
    parts = []
    for start in range(0, len(texts), batch):
        rows = texts[start : start + batch]
        ids = np.zeros((len(rows), max(pad, *map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(rows):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        parts.append(opened.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})[0])
    return np.concatenate(parts)


def latencies(sessions: dict[str, ort.InferenceSession]) -> dict[int, dict[str, float]]:
    """Median milliseconds by length and kind, taking turns, so that a drifting machine affects all alike."""
    found = {}
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(1000, 20000, (1, length))
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, opened in sessions.items():
                opened.run(None, feed)  # refills the caches after the previous turn
                start = time.thread_time()  # other work on the machine does not count
                opened.run(None, feed)
                times[name].append(time.thread_time() - start)
        found[length] = {name: float(np.median(values)) * 1e3 for name, values in times.items()}
    return found


def abroad(
    prepared: emulation.Emulation, processor: str, file: Path, texts: Ids, here: np.ndarray, scratch: Path
) -> float | None:
    """Return the lowest cosine of a text's vector on another processor to the one here; None if it does not run."""
    given, got = scratch / "ids.json", scratch / "vectors.npy"
    given.write_text(json.dumps(texts))
    got.unlink(missing_ok=True)
    prepared.run(processor, ["-P", "-c", GUEST, str(file), str(given), str(got)], timeout_s=1200)
    return low(np.load(got), here) if got.is_file() else None


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    return np.asarray(np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def low(left: np.ndarray, right: np.ndarray) -> float:
    """Return the lowest cosine."""
    return round(float(cosines(left, right).min()), 8)


def summary(left: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Return mean, first percentile and minimum of the cosines."""
    found = cosines(left, right)
    return {
        "mean": round(float(found.mean()), 5),
        "p01": round(float(np.percentile(found, 1)), 5),
        "min": round(float(found.min()), 5),
    }


def table(results: dict[str, Any], processors: Sequence[str]) -> str:
    """Return the results as a Markdown table."""
    head = ["", "MB", "cosine to fp32: mean", "p01", "min", "in a batch: min", "padded: min", *processors]
    head += [f"time at {length} tokens" for length in LENGTHS]
    lines = [head, ["---"] * len(head)]
    for name, found in results.items():
        fidelity, away = found["fidelity"], found["processors_min"]
        lines.append(
            [
                name,
                f"{found['mb']:.1f}",
                *(f"{fidelity[key]:.4f}" for key in ("mean", "p01", "min")),
                *(f"{found[key]:.6f}" for key in ("batch_min", "padding_min")),
                *("" if key not in away else f"{away[key]:.6f}" if away[key] else "does not run" for key in processors),
                *(f"{found['of_plain'][length]:.2f}" for length in LENGTHS),
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot(results: dict[str, Any], file: Path) -> None:
    """Draw time against loss; the area of a disc is the file's size, its colour the lowest cosine on any processor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    for name, found in results.items():
        if name in FLOATS:
            continue
        worst = min([value or 0 for value in found["processors_min"].values()] + [found["batch_min"]], default=1.0)
        steady = worst >= 0.9999
        x, y = found["of_plain"][16], max(1 - found["fidelity"]["mean"], 1e-7)
        axes.scatter(x, y, s=found["mb"] * 8, color="#2a9d5c" if steady else "#c8553d", alpha=0.65, linewidths=0)
        axes.annotate(name.removeprefix("edgeleaf "), (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)
    axes.set_yscale("log")
    axes.set_xlabel("p50 at 16 tokens, one thread, onnxruntime dynamic int8 = 1")
    axes.set_ylabel("1 − mean cosine to fp32 (down is better)")
    axes.set_title(
        "green: the same vector in any batch and on every processor (cosine ≥ 0.9999); disc: size of the file",
        fontsize=9,
    )
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
