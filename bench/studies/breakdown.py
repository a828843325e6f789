"""Shows where a query's time goes: tokenizer, encoder and the rest, beside other tokenizers in the same run.

    python -m bench.studies.breakdown BUNDLE [--repeats N] [-o DIR]

One thread, one process; at every length all parts take turns in random order, so that a drifting machine affects all
alike. The peers are `tokenizers`, called from Python, and the fused BertTokenizer of onnxruntime-extensions.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.studies.tokenizer_peer import EXTENSIONS, TOKENIZER, bert_tokenizer, mismatches
from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.feed import feed_of
from edgeleaf.bundle.machine import machine
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.bundle.session import session
from edgeleaf.errors import BundleError, MissingExtra
from edgeleaf.files import whole_folder, write_json
from edgeleaf.pipeline.places import report_folder
from edgeleaf.recipe.presets import PRESETS
from edgeleaf.texts.corpus import read_texts
from edgeleaf.texts.lengths import texts_of_lengths

SCHEMA_VERSION = 1
LENGTHS = (4, 8, 12, 16, 32, 64, 128, 256, 512)
REPEATS = 400
LOADS = 15
BUDGET_S = 6.0
"""Seconds that one length may take; long texts get fewer repeats, but at least 30."""
LEAST_REPEATS = 30
LONG_BATCH, LONG_CHARACTERS = 64, 10_000
LONG_TEXTS = {
    "english": "where is my parcel and who can tell how many people live in the unaffordable city of Zürich? ",
    "no space": "abcdefghij",
    "ideographs": "㐀中国京",
    "hangul": "각한국밝",
}
WHOLE, GRAPH, ENCODER, REFERENCE = "whole", "graph", "encoder", "tokenizers"

Parts = Mapping[str, Callable[[str], Any]]


def measure(bundle: Path, *, lengths: Sequence[int] = LENGTHS, repeats: int = REPEATS, seed: int = 0) -> dict[str, Any]:
    """Measure the parts of a bundle's query, batch 1, one thread.

    Args:
        bundle: the folder.
        lengths: query lengths in tokens, special tokens and prompt included; those beyond the window are left out.
        repeats: timed calls per part and length.
        seed: seed of the order of turns.

    Returns:
        A record: schema version, machine, settings, notes; ``sizes`` in bytes; ``load_ms``; by length and part
        ``p50_us`` and ``p95_us``, and from the medians ``tokenizer_adds_us`` (the fused graph's minus the encoder's)
        and ``rest_us`` (``QueryEncoder.encode``'s minus the fused graph's); ``mismatches`` with ``tokenizers`` by set
        of texts; ``long`` (64 texts of 10,000 characters: seconds, peak memory in 10**6 bytes).

    Raises:
        BundleError: not a bundle, or one without its unfused encoder.
        MissingExtra: onnx or tokenizers are not installed.
    """
    try:
        import onnx

        from edgeleaf.graph.fuse import tokenizer_of
        from edgeleaf.graph.tokenizers.spec import UNLIMITED, reference_tokenizer
    except ImportError as error:
        raise MissingExtra(f"the breakdown needs {error.name}; pip install 'edgeleaf[bench]'") from None
    manifest = Manifest.read(bundle)
    unfused = bundle / (PRESETS[str(manifest.quantization.get("preset", "fp32"))].file or layout.ONNX_FP32)
    for name in (layout.QUERY_ENCODER, unfused.relative_to(bundle), f"{layout.STUDENT}/tokenizer.json"):
        if not (bundle / name).is_file():
            raise BundleError(f"{bundle / name}: missing; build or copy the bundle again")
    prompt, window = manifest.space.query_prompt, int(manifest.tokenizer["max_length"])
    tokenizer_json = (bundle / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8")
    cut, uncut = (reference_tokenizer(tokenizer_json, length) for length in (window, UNLIMITED))

    tokenizer = tokenizer_of(onnx.load(str(bundle / layout.QUERY_ENCODER))).SerializeToString()
    opened, encoder = session(tokenizer, threads=1), session(unfused, threads=1)
    fused, graph = QueryEncoder.load(bundle, threads=1), session(bundle / layout.QUERY_ENCODER, threads=1)

    feed = feed_of(graph)

    def token_ids(text: str) -> tuple[np.ndarray, np.ndarray]:
        ids, mask = opened.run(["input_ids", "attention_mask"], feed([text]))
        return ids, mask

    known: dict[str, dict[str, np.ndarray]] = {}

    def encode_ids(text: str) -> Any:
        return encoder.run(None, known[text])

    parts: dict[str, Callable[[str], Any]] = {
        WHOLE: lambda text: fused.encode([text]),
        GRAPH: lambda text: graph.run(None, feed([text])),
        TOKENIZER: token_ids,
        ENCODER: encode_ids,
        REFERENCE: lambda text: cut.encode(prompt + text).ids,
    }
    notes: list[str] = []
    peer = bert_tokenizer(tokenizer_json, notes)
    if peer is not None:
        parts[EXTENSIONS] = lambda text: peer(prompt + text)

    texts = _texts(bundle, [length for length in lengths if length <= window], uncut, prompt)
    for group in texts.values():
        for text in group:
            ids, mask = token_ids(text)
            known[text] = {"input_ids": ids, "attention_mask": mask}
    rows = []
    with progress.bar("bench: breakdown", len(texts)) as advance:
        for tokens, group in texts.items():
            rows.append({"tokens": tokens, **_take_turns(parts, group, repeats=repeats, seed=seed)})
            advance(1)
    sizes = {
        "query_encoder": (bundle / layout.QUERY_ENCODER).stat().st_size,
        "tokenizer": len(tokenizer),
        "encoder": unfused.stat().st_size,
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": machine(),
        "settings": {"batch": 1, "threads": 1, "repeats": repeats, "seed": seed},
        "notes": notes,
        "sizes": sizes,
        "load_ms": _loads({TOKENIZER: tokenizer, ENCODER: unfused}),
        "lengths": rows,
        "mismatches": mismatches(bundle, token_ids, peer, cut, uncut, prompt),
        "long": {name: _long(tokenizer, name) for name in LONG_TEXTS},
    }


def table(report: Mapping[str, Any]) -> Any:
    """Return a ``rich.table.Table`` of a record of ``measure``."""
    from rich.table import Table

    peers = [name for name in (TOKENIZER, REFERENCE, EXTENSIONS) if name in report["lengths"][0]]
    titles = {
        TOKENIZER: "tokenizer's\ngraph alone",
        REFERENCE: "tokenizers\n(Python)",
        EXTENSIONS: "ort-extensions\nBertTokenizer",
    }
    title = f"batch 1, one thread, p50 in ms; {report['machine']['processor']}"
    out = Table(title=title, caption=_caption(report))
    for name in ("tokens", "from the\nstring", "encoder", "tokenizer\nadds", "of the\nencoder", "the rest,\nPython"):
        out.add_column(name, justify="right")
    for name in peers:
        out.add_column(titles[name], justify="right")
    for row in report["lengths"]:
        encoder = row[ENCODER]["p50_us"]
        times = (row[WHOLE]["p50_us"], encoder, row["tokenizer_adds_us"])
        out.add_row(
            str(row["tokens"]),
            *(f"{value / 1000:.3f}" for value in times),
            f"{row['tokenizer_adds_us'] / encoder:.1%}",
            f"{row['rest_us'] / 1000:.3f}",
            *(f"{row[name]['p50_us'] / 1000:.3f}" for name in peers),
        )
    return out


def _caption(report: Mapping[str, Any]) -> str:
    sizes, loads = report["sizes"], report["load_ms"]
    lines = [
        f"tokenizer: {sizes['tokenizer'] / 1e6:.2f} of {sizes['query_encoder'] / 1e6:.2f} MB, "
        f"{loads[TOKENIZER]:.1f} ms of cold load beside the encoder's {loads[ENCODER]:.1f}"
    ]
    for name, entry in report["mismatches"].items():
        peer = f", ort-extensions {entry[EXTENSIONS]:,}" if EXTENSIONS in entry else ""
        lines.append(f"other ids than `tokenizers`, {entry['texts']:,} {name}: {entry[TOKENIZER]:,}{peer}")
    for name, entry in report["long"].items():
        lines.append(
            f"{LONG_BATCH} texts of {LONG_CHARACTERS:,} characters, {name}: {entry['seconds']:.2f} s, "
            f"peak {entry['peak_mb']:.0f} MB"
        )
    return "\n".join([*lines, *report["notes"]])


def _take_turns(parts: Parts, texts: Sequence[str], *, repeats: int, seed: int) -> dict[str, Any]:
    """Time every part on every text, in random order; p50 and p95 in microseconds."""
    dice = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in parts}
    for call in parts.values():
        for text in (*texts, *texts):
            call(text)
    order = list(parts)
    start = time.perf_counter()
    for repeat in range(repeats):
        if repeat >= LEAST_REPEATS and time.perf_counter() - start > BUDGET_S:
            break
        dice.shuffle(order)
        text = texts[repeat % len(texts)]
        for name in order:
            call = parts[name]
            begin = time.perf_counter()
            call(text)
            times[name].append(time.perf_counter() - begin)
    found: dict[str, Any] = {}
    for name, values in times.items():
        p50, p95 = np.percentile(np.array(values) * 1e6, [50, 95])
        found[name] = {"p50_us": round(float(p50), 1), "p95_us": round(float(p95), 1)}
    whole, graph, encoder = (found[name]["p50_us"] for name in (WHOLE, GRAPH, ENCODER))
    return {
        "repeats": len(times[WHOLE]),
        **found,
        "tokenizer_adds_us": round(graph - encoder, 1),
        "rest_us": round(whole - graph, 1),
    }


def _texts(bundle: Path, lengths: Sequence[int], tokenizer: Any, prompt: str) -> dict[int, list[str]]:
    """Return running text of exactly these numbers of tokens, made of the queries that the bundle was certified on."""
    queries = [text.text for text in read_texts(bundle / layout.HELD_OUT) if text.kind == "query"]
    found: dict[int, list[str]] = {}
    for length, text in texts_of_lengths(tokenizer, queries, lengths, prompt):
        found.setdefault(length, []).append(text)
    if not found:
        raise BundleError(f"no text of {', '.join(map(str, lengths)) or 'so few'} tokens can be made; ask for others")
    return found


def _loads(models: Mapping[str, bytes | Path]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(LOADS):
        for name, model in models.items():
            begin = time.perf_counter()
            session(model, threads=1)
            times[name].append(1000 * (time.perf_counter() - begin))
    return {name: round(float(np.median(values)), 2) for name, values in times.items()}


def _long(tokenizer: bytes, name: str) -> dict[str, float]:
    """Tokenise the batch of long texts in a fresh process, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.onnx"
        path.write_bytes(tokenizer)
        command = [sys.executable, "-m", "bench.studies.breakdown", "--long", name, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _run_long(path: Path, name: str) -> dict[str, float]:
    from edgeleaf.latency.worker import peak_rss_mb

    opened = session(path, threads=1)
    text = (LONG_TEXTS[name] * LONG_CHARACTERS)[:LONG_CHARACTERS]
    start = time.perf_counter()
    opened.run(None, feed_of(opened)([text] * LONG_BATCH))
    return {"seconds": round(time.perf_counter() - start, 3), "peak_mb": peak_rss_mb() or 0.0}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure a bundle and print the table; with ``-o`` also write ``breakdown.json`` into a new folder."""
    parser = argparse.ArgumentParser(description="Where a query's time goes.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="timed calls per length and part")
    parser.add_argument("--long", help=argparse.SUPPRESS)  # one process per kind of long text
    parser.add_argument("-o", "--output", type=Path, help="write breakdown.json into this new folder")
    given = parser.parse_args(argv)
    if given.long:
        sys.stdout.write(json.dumps(_run_long(given.bundle, given.long)) + "\n")
        return
    progress.show()
    target = report_folder(given.output)
    Manifest.read(given.bundle).verify(given.bundle, layout.QUERY_ENCODER, layout.GOLDEN)
    report = measure(given.bundle, repeats=given.repeats)
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table(report))
    if target is not None:
        with whole_folder(target) as new:
            write_json(new / "breakdown.json", report)


if __name__ == "__main__":
    main()
