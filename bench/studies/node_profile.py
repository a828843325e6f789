"""Shows where a fused file's time goes, node by node, by onnxruntime's own profiler.

    python -m bench.studies.node_profile FILE.onnx|BUNDLE [--tokens 16] [--top 12]

Medians over many runs of one text, one thread; the profiler itself adds some hundred nanoseconds per node.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.tables import markdown_table
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.feed import TEXT, UTF8, feed_of

RUNS = 200
WARMUP = 20


def profile(file: Path, *, tokens: int, runs: int = RUNS) -> dict[str, Any]:
    """Profile one file on one text.

    Returns:
        ``whole_us`` (median of a run), ``nodes`` (name, op, median µs; in the order of execution), ``tokens``.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        feed = _feed(session, tokens)
        for _ in range(WARMUP + runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    whole: list[int] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]].append(event["dur"])
        elif event.get("name") == "model_run":
            whole.append(event["dur"])
    nodes = [
        {"name": name, "op": op, "us": statistics.median(found[WARMUP:] or found)}
        for (name, op), found in times.items()
    ]
    return {"tokens": tokens, "whole_us": statistics.median(whole[WARMUP:]), "nodes": nodes}


def _feed(session: Any, tokens: int) -> dict[str, Any]:
    """Return a text of this many words that are one token each, or this many ids."""
    names = [entry.name for entry in session.get_inputs()]
    if names in ([TEXT], [UTF8]):
        return feed_of(session)([" ".join(["parcel"] * (tokens - 2))])
    ids = np.random.default_rng(0).integers(1000, 2000, (1, tokens))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {name: feed[name] for name in names}


def table(found: dict[str, Any], top: int) -> str:
    """Return Markdown: operators by their share, then the slowest nodes."""
    by_op: dict[str, list[float]] = defaultdict(list)
    for node in found["nodes"]:
        by_op[node["op"]].append(node["us"])
    total = sum(map(sum, by_op.values()))
    head = (
        f"{found['tokens']} tokens: {found['whole_us'] / 1000:.3f} ms a run, {len(found['nodes'])} nodes, "
        f"{total / 1000:.3f} ms inside them"
    )
    operators = [
        [op, str(len(costs)), f"{sum(costs):.0f}", f"{sum(costs) / total:.1%}"]
        for op, costs in sorted(by_op.items(), key=lambda item: -sum(item[1]))
    ]
    nodes = sorted(found["nodes"], key=lambda node: -node["us"])[:top]
    tables = [
        markdown_table(["operator", "nodes", "µs", "share"], operators),
        markdown_table(["node", "operator", "µs"], [[n["name"], n["op"], f"{n['us']:.0f}"] for n in nodes], left=2),
    ]
    return "\n\n".join([head, *tables]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--top", type=int, default=12)
    given = parser.parse_args()
    file = given.file / layout.QUERY_ENCODER if given.file.is_dir() else given.file
    sys.stdout.write(table(profile(file, tokens=given.tokens), given.top))


if __name__ == "__main__":
    main()
