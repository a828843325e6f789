"""A student's retrieval beside its teacher's, all-MiniLM-L6-v2's and BM25's, on collections in BEIR's layout.

    python -m bench.retrieval BUNDLE COLLECTION [COLLECTION ...] -o out/retrieval [--before OTHER_BUNDLE]

Prints nDCG@10 with 95% bootstrap intervals over queries, and what share of the teacher's each system keeps;
``--before`` adds the queries of another bundle of the same space, such as the one that was adapted. Asymmetric: queries
by the student among documents of the teacher. Vectors of documents, the long part, stay in ``OUTPUT/vectors``.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeleaf import bundle as layout
from edgeleaf import models, progress, steps
from edgeleaf.bundle import Manifest
from edgeleaf.certify.alignment import nearest
from edgeleaf.certify.ladder import document_vectors, fused_encode, student_vectors
from edgeleaf.certify.retrieval import Retrieval, retrieval
from edgeleaf.collection import Collection, encode_collection, read_collections

PLAIN = "sentence-transformers/all-MiniLM-L6-v2"
K = 100
THREADS = 2

Rows = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--before", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    progress.show()
    teacher = steps.teacher_of(Manifest.read(given.bundle))
    report: dict[str, dict[str, Retrieval]] = {}
    for collection in read_collections(given.collections):
        name = collection.name
        progress.say(f"{name}: {len(collection.queries):,} queries, {len(collection.documents):,} documents")
        report[name] = {
            system: retrieval(collection, ranking)
            for system, ranking in _rankings(collection, teacher, given.bundle, given.before, given.output).items()
        }
    plain = {name: {system: asdict(found) for system, found in rows.items()} for name, rows in report.items()}
    layout.write_json(given.output / "retrieval.json", plain)
    text = table(report)
    layout.write_text(given.output / "retrieval.md", text)
    sys.stdout.write(text)


def table(report: dict[str, dict[str, Retrieval]]) -> str:
    """Return Markdown: a line a system, a column a collection; share of the teacher's nDCG@10, mean and least, last."""
    names = list(report)
    systems = list(report[names[0]])
    lines = [f"| nDCG@10 | {' | '.join(names)} | of the teacher's: mean | least |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for system in systems:
        cells, shares = [], []
        for name in names:
            value = report[name][system].ndcg_at_10
            cells.append(f"{value.mean:.4f} ({value.low:.3f}–{value.high:.3f})")
            shares.append(value.mean / report[name]["teacher"].ndcg_at_10.mean)
        lines.append(f"| {system} | {' | '.join(cells)} | {np.mean(shares):.1%} | {min(shares):.1%} |")
    return "\n".join(lines) + "\n"


def _rankings(
    collection: Collection, teacher: steps.SentenceTransformerTeacher, bundle: Path, before: Path | None, output: Path
) -> dict[str, npt.NDArray[np.int64]]:
    """Rankings of a collection's documents by every system."""
    space = Manifest.read(bundle).space
    encoded = encode_collection(collection, teacher, output / "vectors")
    by_teacher = encoded.teacher_documents.astype(np.float32)
    queries, documents = collection.queries, collection.documents

    def torch(folder: Path, texts: Sequence[str], prompt: str) -> Rows:
        return student_vectors(folder, texts, prompt=prompt, threads=THREADS)[0]

    def fused(folder: Path) -> Rows:
        encode = fused_encode(folder / layout.QUERY_ENCODER, threads=THREADS)
        return np.concatenate([encode([query]) for query in queries])

    def kept(weights: str, make: Callable[[], Rows]) -> Rows:
        """Vectors of the collection's documents, from the output folder where they are there."""
        key = hashlib.sha256("\x00".join((weights, *documents)).encode()).hexdigest()[:24]
        path = output / "vectors" / f"{key}.npy"
        if not path.is_file():
            layout.write_npy(path, make())
        return np.load(path)

    student, plain = bundle / layout.STUDENT, models.resolve(PLAIN)
    asked, by_file = torch(student, queries, space.query_prompt), fused(bundle)
    own = kept(models.weights_sha256(student), lambda: torch(student, documents, space.document_prompt))
    filed = kept(
        layout.sha256(bundle / layout.QUERY_ENCODER),
        lambda: document_vectors(
            bundle,
            documents,
            query_prompt=space.query_prompt,
            document_prompt=space.document_prompt,
            threads=THREADS,
        )[0],
    )
    minilm = kept(models.weights_sha256(plain), lambda: torch(plain, documents, ""))
    found = {
        "teacher": nearest(encoded.teacher_queries.astype(np.float32), by_teacher, K),
        "student, asymmetric, float32": nearest(asked, by_teacher, K),
        "student, asymmetric, int8 file": nearest(by_file, by_teacher, K),
        "student, symmetric, float32": nearest(asked, own, K),
        "student, symmetric, int8 file": nearest(by_file, filed, K),
        "all-MiniLM-L6-v2, symmetric": nearest(torch(plain, queries, ""), minilm, K),
        "BM25": _bm25(queries, documents),
    }
    if before is not None:
        found["before, asymmetric, int8 file"] = nearest(fused(before), by_teacher, K)
    return found


def _bm25(queries: Sequence[str], documents: Sequence[str]) -> npt.NDArray[np.int64]:
    """BM25 as bm25s has it by default (Lucene's variant, k1 1.5, b 0.75), English stop words left out."""
    import bm25s

    searcher = bm25s.BM25()
    searcher.index(bm25s.tokenize(list(documents), stopwords="en", show_progress=False), show_progress=False)
    asked = bm25s.tokenize(list(queries), stopwords="en", show_progress=False)
    rows, _ = searcher.retrieve(asked, k=min(K, len(documents)), show_progress=False)
    return np.asarray(rows, dtype=np.int64)


if __name__ == "__main__":
    main()
