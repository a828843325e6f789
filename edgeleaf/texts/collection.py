"""A retrieval collection in BEIR's layout: documents, queries, and which documents answer which query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import TextsError
from edgeleaf.texts.documents import read_documents
from edgeleaf.texts.readers import numbered_lines

CORPUS_FILE, QUERIES_FILE, QRELS_FILE = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"
DEV_QRELS = "qrels/dev.tsv"
"""The qrels by which BEIR judges MS MARCO, because those of the test queries are not public."""
LEAST_DOCUMENTS = 11
"""With fewer documents than this, the overlap of the first ten means nothing."""

Qrels = Mapping[str, Mapping[str, int]]
"""Grade of a document for a query, by the query's id, then by the document's id."""


@dataclass(frozen=True)
class Collection:
    """Documents and queries with their ids, in the order of the files.

    Args:
        name: the folder's name.
        query_ids, queries: the queries that ``qrels`` judges; without qrels, all queries of the file.
        document_ids, documents: title and text, as the teacher encodes them.
        qrels: empty if the collection has none.
    """

    name: str
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    qrels: Qrels

    @cached_property
    def itself(self) -> npt.NDArray[np.int64]:
        """Return each query's own row among the documents, int64 [queries], -1 if it has none.

        A query that is one of the documents (ArguAna, Quora) must not find itself; BEIR leaves out equal ids. Here the
        texts must be equal, too, because other collections number both queries and documents from 1.
        """
        rows = {key: row for row, key in enumerate(self.document_ids)}
        return np.array(
            [
                rows[key] if key in rows and query in self.documents[rows[key]] else -1
                for key, query in zip(self.query_ids, self.queries, strict=True)
            ],
            dtype=np.int64,
        )


def read_collections(folders: Sequence[str | Path]) -> list[Collection]:
    """Read collections from folders with different names.

    Raises:
        TextsError: like :func:`read_collection`; or two folders have the same name.
    """
    found: dict[str, Path] = {}
    for folder in map(Path, folders):
        name = folder.resolve().name
        if name in found:
            raise TextsError(f"{found[name]} and {folder} are both called {name!r}; a collection needs its own name")
        found[name] = folder
    return [read_collection(folder) for folder in found.values()]


def read_collection(folder: Path) -> Collection:
    """Read ``corpus.jsonl``, ``queries.jsonl`` and, if they exist, qrels, each gzipped or not.

    Qrels are ``qrels/test.tsv``, or ``qrels/dev.tsv`` if there is no other.

    Raises:
        TextsError: a folder or file that is missing, a damaged line (with its number), an id that occurs twice or is
            unknown, too few documents, only qrels with other names.
    """
    if not folder.is_dir():
        raise TextsError(f"{folder}: no such folder; a collection has {CORPUS_FILE}, {QUERIES_FILE} and {QRELS_FILE}")
    corpus, asked = (_file(folder, name) for name in (CORPUS_FILE, QUERIES_FILE))
    for name, path in ((CORPUS_FILE, corpus), (QUERIES_FILE, asked)):
        if path is None:
            raise TextsError(
                f"{folder} has no {name} (nor {name}.gz); a collection has {CORPUS_FILE}, {QUERIES_FILE}, {QRELS_FILE}"
            )
    assert corpus is not None and asked is not None
    documents, queries = read_documents(corpus), dict(read_documents(asked))
    if len(documents) < LEAST_DOCUMENTS:
        raise TextsError(f"{corpus}: {len(documents)} documents; a ranking needs at least {LEAST_DOCUMENTS}")
    judged = _file(folder, QRELS_FILE) or _file(folder, DEV_QRELS)
    if judged is None and (others := sorted(path.name for path in (folder / "qrels").glob("*.tsv*"))):
        raise TextsError(f"{folder}/qrels has {', '.join(others)}, but neither test.tsv nor dev.tsv; rename one")
    qrels = {} if judged is None else read_qrels(judged, queries, {key for key, _ in documents})
    ids = tuple(key for key in queries if key in qrels or not qrels)
    return Collection(
        name=folder.resolve().name,
        query_ids=ids,
        queries=tuple(queries[key] for key in ids),
        document_ids=tuple(key for key, _ in documents),
        documents=tuple(text for _, text in documents),
        qrels=qrels,
    )


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_qrels(path: Path, queries: Mapping[str, str], documents: set[str]) -> dict[str, dict[str, int]]:
    """Read query, document and grade of every line; a first line without a grade is a heading.

    A document that the corpus lacks is kept and counts as not found.
    """
    qrels: dict[str, dict[str, int]] = {}
    known = False
    for number, line in numbered_lines(path):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and len(cells) == 3 and not _is_whole(cells[2])):
            continue
        if len(cells) != 3 or not _is_whole(cells[2]):
            raise TextsError(f"{path}, line {number}: needed query-id, corpus-id and a whole number, tabs between them")
        query, document, grade = cells
        if query not in queries:
            raise TextsError(f"{path}, line {number}: no query {query!r} in {QUERIES_FILE}")
        if document in qrels.setdefault(query, {}):
            raise TextsError(f"{path}, line {number}: query {query!r} and document {document!r} are judged before")
        qrels[query][document] = int(grade)
        known = known or document in documents
    if not known:
        raise TextsError(f"{path}: judges no document of {CORPUS_FILE}; give the qrels that belong to it")
    return qrels


def _is_whole(cell: str) -> bool:
    try:
        int(cell)
    except ValueError:
        return False
    return True
