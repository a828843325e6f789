"""An exact index of teacher vectors on disk: a matrix, the documents beside it, and the space they live in.

A folder with ``index.json`` (schema version, vector space, count), ``vectors.npy`` (float16 [n, dim], unit L2 norm) and
``documents.jsonl`` (``{"id", "text"}`` a line). Needs numpy only. Good for thousands to a few million documents; beyond
that, load ``vectors.npy`` into the approximate index of your choice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle import VectorSpace, whole_folder, write_json, write_npy, write_text
from edgeleaf.encoder import truncate
from edgeleaf.errors import BundleError

SCHEMA_VERSION = 1
HEADER, VECTORS, DOCUMENTS = "index.json", "vectors.npy", "documents.jsonl"
CHUNK = 65_536


@dataclass(frozen=True)
class Hit:
    """A document that was found: its id, its text and its cosine to the query."""

    id: str
    text: str
    score: float


class Index:
    """Teacher-encoded documents, ready for a query encoder of the same space.

    Args:
        space: the vector space.
        documents: (id, text) pairs.
        vectors: [len(documents), space.dim], unit L2 norm, any float type, memory-mapped or not.

    Raises:
        BundleError: another number of vectors than documents, or another width than the space's.
    """

    def __init__(
        self, *, space: VectorSpace, documents: Sequence[tuple[str, str]], vectors: npt.NDArray[np.floating[Any]]
    ) -> None:
        if vectors.shape != (len(documents), space.dim):
            raise BundleError(
                f"vectors of shape {vectors.shape} for {len(documents)} documents of a space of {space.dim} numbers"
            )
        self.space = space
        self.documents = documents
        self.vectors = vectors

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write the index, whole or not at all; ``force`` replaces an index that is there.

        Raises:
            BundleError: ``folder`` is there, and neither empty nor an index to be replaced.
        """
        self.check_target(folder, force=force)
        with whole_folder(folder) as new:
            write_npy(new / VECTORS, np.asarray(self.vectors, dtype=np.float16))
            lines = (json.dumps({"id": key, "text": text}, ensure_ascii=False) + "\n" for key, text in self.documents)
            write_text(new / DOCUMENTS, "".join(lines))
            header = {"schema_version": SCHEMA_VERSION, "space": asdict(self.space), "documents": len(self.documents)}
            write_json(new / HEADER, header)

    @staticmethod
    def check_target(folder: Path, *, force: bool = False) -> None:
        """Raise BundleError where :meth:`save` would."""
        if (folder / HEADER).is_file():
            if not force:
                raise BundleError(f"{folder} is an index already; give a new folder, or --force to replace it")
        elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise BundleError(f"{folder} is there and is no index; give a new folder, or one that edgeleaf wrote")

    @staticmethod
    def load(folder: str | Path) -> Index:
        """Open an index; its vectors stay on disk, memory-mapped.

        Raises:
            BundleError: no such index, damaged, or of another schema version.
        """
        folder = Path(folder)
        if not (folder / HEADER).is_file():
            raise BundleError(f"{folder} is no index: it has no {HEADER}; make one with: edgeleaf index")
        try:
            header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
            if header["schema_version"] != SCHEMA_VERSION:
                raise BundleError(
                    f"{folder}: index of schema version {header['schema_version']}, this edgeleaf reads "
                    f"{SCHEMA_VERSION}; make it again"
                )
            lines = (folder / DOCUMENTS).read_text(encoding="utf-8").split("\n")
            documents = [(str(row["id"]), str(row["text"])) for row in map(json.loads, filter(None, lines))]
            vectors = np.load(folder / VECTORS, mmap_mode="r")
            return Index(space=VectorSpace(**header["space"]), documents=documents, vectors=vectors)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{folder}: damaged index ({error}); make it again") from None

    def search(self, queries: npt.NDArray[np.float32], *, space: VectorSpace, k: int = 10) -> list[list[Hit]]:
        """Find the ``k`` documents nearest to each query, nearest first.

        Args:
            queries: float32 [n, dims], unit L2 norm; fewer dims than the space has are compared as they are
                (Matryoshka), the documents cut alike.
            space: the space that the queries were encoded in, ``QueryEncoder.space``.
            k: how many.

        Raises:
            BundleError: the queries are of another space; the message names both.
        """
        if space.identity() != self.space.identity():
            raise BundleError(
                f"queries of the space {space.id} cannot search an index of the space {self.space.id}; "
                "encode them with a bundle of that space, or index the documents again"
            )
        scores = np.empty((len(queries), len(self.documents)), dtype=np.float32)
        for start in range(0, len(self.documents), CHUNK):
            chunk = np.asarray(self.vectors[start : start + CHUNK], dtype=np.float32)
            scores[:, start : start + CHUNK] = queries @ truncate(chunk, queries.shape[1]).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]

        def hit(i: int, row: int) -> Hit:
            key, text = self.documents[row]
            return Hit(key, text, float(scores[i, row]))

        return [[hit(i, row) for row in rows] for i, rows in enumerate(best)]
