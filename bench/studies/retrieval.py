"""Compares a student's retrieval with its teacher's, all-MiniLM-L6-v2's and BM25's, on collections in BEIR's layout.

    python -m bench.studies.retrieval BUNDLE COLLECTION [COLLECTION ...] -o out/retrieval [--adapted DIR] [--asymmetric]
        [--short]

Prints nDCG@10 with 95% bootstrap intervals over queries, and the share of the teacher's that each system keeps, on the
same resampled queries. Asymmetric means queries by the student among documents by the teacher. ``--adapted`` adds the
queries of bundles that were each adapted to one collection: ``DIR/COLLECTION_NAME``. ``--asymmetric`` leaves out the
student among its own documents, whose vectors take an hour or longer. ``--short`` takes a part of each collection, as
:mod:`bench.studies.teach` does: minutes instead of hours, and higher scores, since most documents are missing. All
dense systems read as many tokens of a document as the bundle's teacher does. Vectors of documents, which take longest,
stay in ``OUTPUT/vectors``. The results of each collection are written before the next begins.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.studies.short_collections import bm25, shortened
from bench.tables import markdown_table
from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.inputs import EncodedCollection, encode_collection
from edgeleaf.certify.ladder import document_vectors, fused_encode, student_vectors
from edgeleaf.certify.retrieval import Estimate, bootstrap, estimate, per_query
from edgeleaf.errors import BundleError, EdgeleafError
from edgeleaf.files import sha256, write_json, write_npy, write_text
from edgeleaf.models.resolve import resolve
from edgeleaf.models.weights import weights_sha256
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.texts.collection import Collection, read_collections
from edgeleaf.vectors import nearest

PLAIN = "sentence-transformers/all-MiniLM-L6-v2"
TEACHER, ADAPTED = "teacher", "adapted, asymmetric, int8 file"
MEASURES = {"ndcg_at_10": "nDCG@10", "mrr_at_10": "RR@10", "recall_at_100": "R@100"}
K, THREADS = 100, 2

Rows = npt.NDArray[np.float32]
Ranking = npt.NDArray[np.int64]
PerQuery = Mapping[str, npt.NDArray[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--adapted", type=Path)
    parser.add_argument("--asymmetric", action="store_true")
    parser.add_argument("--short", action="store_true", help="judge on a part of each collection")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    progress.show()
    try:
        collections = read_collections(given.collections)
        if given.short:
            collections = [shortened(part, part.name) for part in collections]
        report = measure(given.bundle, collections, given.adapted, given.output, symmetric=not given.asymmetric)
    except EdgeleafError as error:
        sys.exit(str(error))
    text = table(report)
    write_text(given.output / "retrieval.md", text)
    sys.stdout.write(text)


def measure(
    bundle: Path, collections: Sequence[Collection], adapted: Path | None, output: Path, *, symmetric: bool = True
) -> dict[str, Any]:
    """Return by collection and system the estimates, and the share of the teacher's nDCG@10 with its interval.

    Raises:
        BundleError: an adapted bundle lies in another vector space.
    """
    manifest = Manifest.read(bundle)
    teacher = teacher_of(manifest)
    others = {} if adapted is None else {part.name: adapted / part.name for part in collections}
    others = {name: folder for name, folder in others.items() if folder.is_dir()}
    for folder in others.values():
        if (space := Manifest.read(folder).space.id) != manifest.space.id:
            raise BundleError(f"{folder} has the space {space}, {bundle} {manifest.space.id}; adapt that bundle")
    report: dict[str, Any] = {}
    for part in collections:
        progress.say(f"{part.name}: {len(part.queries):,} queries, {len(part.documents):,} documents")
        encoded = encode_collection(part, teacher, output / "vectors")
        rankings = _rankings(encoded, manifest, bundle, output, symmetric=symmetric)
        if part.name in others:
            asked = _fused(others[part.name], part.queries)
            rankings[ADAPTED] = nearest(asked, encoded.teacher_documents.astype(np.float32), K, skip=part.itself)
        values = {system: per_query(part, ranking) for system, ranking in rankings.items()}
        report[part.name] = {system: _judged(found, values[TEACHER]) for system, found in values.items()}
        write_json(output / "retrieval.json", report)
    return report


def _judged(found: PerQuery, teacher: PerQuery) -> dict[str, Any]:
    ours, theirs = (values[MEASURES["ndcg_at_10"]] for values in (found, teacher))
    share = bootstrap(lambda rows: float(ours[rows].mean() / theirs[rows].mean()), len(ours))
    return {
        **{key: asdict(estimate(found[measure])) for key, measure in MEASURES.items()},
        "of_the_teacher": asdict(share),
    }


def table(report: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return Markdown: nDCG@10, then the share of the teacher's; one line per system, one column per collection."""
    names = list(report)
    systems = list(dict.fromkeys(system for found in report.values() for system in found))

    def row(system: str, key: str, form: Callable[[Estimate], str]) -> list[str]:
        found = [report[name].get(system) for name in names]
        return [system, *("–" if part is None else form(Estimate(**part[key])) for part in found)]

    def plain(value: Estimate) -> str:
        return f"{value.mean:.4f} ({value.low:.3f}–{value.high:.3f})"

    def share(value: Estimate) -> str:
        return f"{value.mean:.1%} ({100 * value.low:.0f}–{100 * value.high:.0f})"

    shares = []
    for system in systems:
        kept = [report[name][system]["of_the_teacher"]["mean"] for name in names if system in report[name]]
        shares.append([*row(system, "of_the_teacher", share), f"{np.mean(kept):.1%}", f"{min(kept):.1%}"])
    first = markdown_table(["nDCG@10", *names], [row(system, "ndcg_at_10", plain) for system in systems])
    second = markdown_table(["of the teacher's nDCG@10", *names, "mean", "lowest"], shares)
    return f"{first}\n\n{second}\n"


def _rankings(
    encoded: EncodedCollection, manifest: Manifest, bundle: Path, output: Path, *, symmetric: bool
) -> dict[str, Ranking]:
    """Return rankings of a collection's documents by every system."""
    space, window = manifest.space, manifest.teacher_max_length
    by_teacher = encoded.teacher_documents.astype(np.float32)
    queries, documents = encoded.collection.queries, encoded.collection.documents
    first = partial(nearest, k=K, skip=encoded.collection.itself)

    def torch(folder: Path, texts: Sequence[str], prompt: str) -> Rows:
        return student_vectors(folder, texts, prompt=prompt, threads=THREADS, max_length=window)[0]

    def kept(who: str, make: Callable[[], Rows]) -> Rows:
        """Return vectors of the collection's documents, from the output folder if it has them."""
        key = hashlib.sha256("\x00".join((who, str(window), *documents)).encode()).hexdigest()[:24]
        path = output / "vectors" / f"{key}.npy"
        if not path.is_file():
            write_npy(path, make())
        return np.load(path)

    student, plain = bundle / layout.STUDENT, resolve(PLAIN)
    prompts = {"query_prompt": space.query_prompt, "document_prompt": space.document_prompt}
    asked, by_file = torch(student, queries, space.query_prompt), _fused(bundle, queries)
    own: dict[str, Ranking] = {}
    if symmetric:
        by_student = kept(
            f"student {weights_sha256(student)} {space.document_prompt}",
            lambda: torch(student, documents, space.document_prompt),
        )
        filed = kept(
            f"file {sha256(bundle / layout.QUERY_ENCODER)} {space.document_prompt}",
            lambda: document_vectors(bundle, documents, **prompts, threads=THREADS)[0],
        )
        own = {
            "student, symmetric, float32": first(asked, by_student),
            "student, symmetric, int8 file": first(by_file, filed),
        }
    minilm = kept(f"plain {weights_sha256(plain)}", lambda: torch(plain, documents, ""))
    return {
        TEACHER: first(encoded.teacher_queries.astype(np.float32), by_teacher),
        "student, asymmetric, float32": first(asked, by_teacher),
        "student, asymmetric, int8 file": first(by_file, by_teacher),
        **own,
        "all-MiniLM-L6-v2, symmetric": first(torch(plain, queries, ""), minilm),
        "BM25": bm25(encoded.collection, K),
    }


def _fused(bundle: Path, queries: Sequence[str]) -> Rows:
    encode = fused_encode(bundle / layout.QUERY_ENCODER, threads=THREADS)
    return np.concatenate([encode([query]) for query in queries])


if __name__ == "__main__":
    main()
