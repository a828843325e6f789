"""What a tokenizer costs as a graph, in `tokenizers` and in onnxruntime-extensions: sizes, load, time of a query.

    EDGELEAF_DATA=... python -m bench.studies.tokenizer_cost [--family NAME ...] [--rounds N] [--every N]

Times are processor time of the one thread that works, in ms, so that other programs count little: they still empty
the caches. The three take turns, one text at a time, in an order that is drawn anew. Queries have ten tokens without
special ones, or as near to that as there are. onnxruntime-extensions does not add special tokens as `tokenizers` does;
so its ids count as equal with and without them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.studies.tokenizer_parity import EXAMPLES, MAX_LENGTH
from bench.studies.tokenizer_peer import bert_tokenizer_graph, json_tokenizer_graph, opened_with_extensions
from bench.studies.tokenizer_texts import tagged, text_sets
from bench.studies.tokenizer_vocabularies import FAMILIES, special_tokens
from edgeleaf.bundle.session import session
from edgeleaf.errors import EdgeleafError
from edgeleaf.graph.tokenizers import as_model
from edgeleaf.graph.tokenizers.spec import UNLIMITED, reference_tokenizer

TOKENS, QUERIES = 10, 40
LOADS = 5
CLASSES = {
    "GPT-2": "GPT2Tokenizer",
    "RoBERTa-like": "GPT2Tokenizer",  # it refuses RobertaTokenizer
    "Qwen3": "Qwen2Tokenizer",
    "Llama-2": "LlamaTokenizer",
    "Gemma-3": "GemmaTokenizer",
    "XLM-R-like": "XLMRobertaTokenizer",
    "T5-like": "T5Tokenizer",
}
"""What onnxruntime-extensions takes a vocabulary for; others are PreTrainedTokenizerFast."""
COLUMNS = (
    "graph, MB",
    "tokenizer.json, MB",
    "load: graph",
    "`tokenizers`",
    "extensions",
    "English: graph p50 (p90)",
    "`tokenizers`",
    "extensions",
    "Chinese: graph p50 (p90)",
    "`tokenizers`",
    "extensions",
    "extensions: other ids",
)

Call = Callable[[str], Any]


def main() -> int:
    """Print a table for every family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=15, help="how often every query is timed")
    parser.add_argument("--every", type=int, default=100, help="extensions' ids of every N-th text of the parity study")
    options = parser.parse_args()
    data = os.environ.get("EDGELEAF_DATA")
    if not data:
        sys.stderr.write("EDGELEAF_DATA is not set: point it to the folder with texts/ and unicode/\n")
        return 2
    try:
        for family in options.family or FAMILIES:
            sys.stdout.write(f"| {family} | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}\n")
            for name, tokenizer in FAMILIES[family](Path(data)):
                cells = measured(name, tokenizer, Path(data), options.rounds, options.every)
                sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")
                sys.stdout.flush()
    except EdgeleafError as error:
        sys.stderr.write(f"tokenizer_cost: {error}\n")
        return 2
    return 0


def measured(name: str, tokenizer: dict[str, Any], data: Path, rounds: int, every: int) -> list[str]:
    """Return the cells of a vocabulary's row."""
    from tokenizers import Tokenizer

    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    model = as_model(tokenizer, max_length=MAX_LENGTH).SerializeToString()
    load = {
        "graph": loaded(lambda: session(model, threads=1)),
        "tokenizers": loaded(lambda: Tokenizer.from_str(text)),
    }
    graph = session(model, threads=1)
    cut, uncut = (reference_tokenizer(tokenizer, length) for length in (MAX_LENGTH, UNLIMITED))
    calls: dict[str, Call] = {
        "graph": lambda query: graph.run(None, {"text": np.array([query], dtype=object)}),
        "tokenizers": lambda query: cut.encode(query).ids,
    }
    other = "not measured"
    peer_graph = extensions_graph(name, tokenizer, text)
    if peer_graph is not None:
        load["extensions"] = loaded(lambda: opened_with_extensions(peer_graph))
        peer = opened_with_extensions(peer_graph)
        calls["extensions"] = lambda query: peer.run(None, {"text": np.array([query], dtype=object)})[0]
        sets = text_sets(data, every, 10, special_tokens(tokenizer))
        texts = [*chain.from_iterable(make() for make in sets.values())]
        wrong = [query for query in texts if not same_ids(calls["extensions"], uncut, query)]
        other = f"{len(wrong):,} / {len(texts):,}"
        for query in wrong[:EXAMPLES]:
            sys.stderr.write(f"{name}, extensions differ: {query[:80]!r}\n")
    cells = [f"{len(model) / 1e6:.2f}", f"{len(text.encode()) / 1e6:.2f}"]
    cells += [f"{load[part]:.0f}" if part in load else "" for part in ("graph", "tokenizers", "extensions")]
    for queries in (english(data), chinese(data)):
        times = timed(calls, nearest(queries, uncut), rounds)
        p50, p90 = np.percentile(times["graph"], [50, 90])
        cells.append(f"{p50:.2f} ({p90:.2f})")
        cells += [f"{np.median(times[p]):.3f}" if p in times else "" for p in ("tokenizers", "extensions")]
    return [*cells, other]


def extensions_graph(name: str, tokenizer: dict[str, Any], text: str) -> bytes | None:
    """Return a graph of onnxruntime-extensions with this vocabulary, or None with a line that says why not."""
    try:
        import onnxruntime_extensions  # noqa: F401
    except ImportError:
        sys.stderr.write("onnxruntime-extensions is not measured: pip install onnxruntime-extensions\n")
        return None
    if tokenizer["model"]["type"] != "WordPiece":
        kind = CLASSES.get(name.split(",")[0], "PreTrainedTokenizerFast")
        return bytes(json_tokenizer_graph(text, kind).SerializeToString())
    if "[CLS]" not in tokenizer["model"]["vocab"]:
        sys.stderr.write(f"{name}: onnxruntime-extensions is not measured: it has BERT's special tokens built in\n")
        return None
    return bytes(bert_tokenizer_graph(text).SerializeToString())


def same_ids(call: Call, tokenizer: Any, text: str) -> bool:
    """Whether a peer gives the ids of `tokenizers`, with special tokens or without."""
    try:
        found = np.asarray(call(text)).ravel().tolist()
    except Exception:  # onnxruntime's errors have no common base below Exception
        return False
    return any(found == tokenizer.encode(text, add_special_tokens=special).ids for special in (True, False))


def loaded(load: Callable[[], object]) -> float:
    """Return the processor time of loading, in ms, the median of a few."""
    times = []
    for _ in range(LOADS):
        start = time.thread_time()
        made = load()
        times.append(1e3 * (time.thread_time() - start))
        del made
    return float(np.median(times))


def timed(calls: dict[str, Call], queries: list[str], rounds: int) -> dict[str, list[float]]:
    """Return by call the processor times in ms of every query in every round, the first of which does not count."""
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for query in queries:
            for name in order.sample(list(calls), len(calls)):
                start = time.thread_time()
                calls[name](query)
                if number:
                    times[name].append(1e3 * (time.thread_time() - start))
    return times


def english(data: Path) -> Iterator[str]:
    """Yield English queries."""
    return tagged(data / "texts" / "queries.tsv.gz", None)


def chinese(data: Path) -> Iterator[str]:
    """Yield Chinese questions."""
    return tagged(data / "unicode" / "multilingual-questions.tsv.gz", ("zh",))


def nearest(queries: Iterable[str], tokenizer: Any) -> list[str]:
    """Return the queries whose number of tokens is nearest to ``TOKENS``."""
    some = list(islice(queries, 5000))
    counts = [len(found.ids) for found in tokenizer.encode_batch_fast(some, add_special_tokens=False)]
    return [some[i] for i in np.argsort(np.abs(np.array(counts) - TOKENS), kind="stable")[:QUERIES]]


if __name__ == "__main__":
    sys.exit(main())
