"""An exact index of teacher vectors on disk: a matrix, the documents beside it, and the space they live in.

A folder with ``index.json`` (schema version, vector space, count, width), ``vectors.npy`` (float16 [n, dims], unit L2
norm), ``documents.jsonl`` (``{"id", "text"}`` a line) and, if its vectors are shorter than the space's, ``pca.npy``
(float32 [dim, dims]): a query's vector times this matrix, brought to unit norm again, is what they are compared with.
Needs numpy only. Good for thousands to a few million documents; beyond that, load ``vectors.npy`` into the approximate
index of your choice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import BundleError
from edgeleaf.files import whole_folder, write_json, write_npy, write_text
from edgeleaf.search.pca import apply_pca, fit_pca
from edgeleaf.vectors import truncate

INDEX_SCHEMA = 2
READABLE = (1, 2)
"""Version 1 had neither ``dims`` nor ``pca.npy``, and is otherwise the same."""
HEADER, VECTORS, DOCUMENTS, PCA_FILE = "index.json", "vectors.npy", "documents.jsonl", "pca.npy"
_CHUNK = 65_536


@dataclass(frozen=True)
class Hit:
    """A document that was found: its id, its text and its cosine to the query, that of the index's own vectors."""

    id: str
    text: str
    score: float


class Index:
    """Teacher-encoded documents, ready for a query encoder of the same space.

    Args:
        space: the vector space.
        documents: (id, text) pairs.
        vectors: [len(documents), dims], unit L2 norm, any float type, memory-mapped or not.
        pca: float32 [space.dim, dims], what the vectors were shortened with (:func:`edgeleaf.search.fit_pca`); None
            where they have the space's width.

    Raises:
        BundleError: another number of vectors than documents, or another width than the space's or ``pca``'s.
    """

    def __init__(
        self,
        *,
        space: VectorSpace,
        documents: Sequence[tuple[str, str]],
        vectors: npt.NDArray[np.floating[Any]],
        pca: npt.NDArray[np.float32] | None = None,
    ) -> None:
        if pca is not None and (pca.ndim != 2 or len(pca) != space.dim):
            raise BundleError(f"principal axes of shape {pca.shape} for a space of {space.dim} numbers")
        dims = space.dim if pca is None else pca.shape[1]
        if vectors.shape != (len(documents), dims):
            kind = f"a space of {space.dim} numbers" + ("" if pca is None else f", shortened to {dims}")
            raise BundleError(f"vectors of shape {vectors.shape} for {len(documents)} documents of {kind}")
        self.space = space
        self.documents = documents
        self.vectors = vectors
        self.pca = pca

    def shortened(self, dims: int) -> Index:
        """Return this index with vectors of ``dims`` numbers, along its documents' principal axes.

        Raises:
            InputError: ``dims`` is not below the vectors' width.
            BundleError: they are short already.
        """
        if self.pca is not None:
            raise BundleError(
                f"an index of {self.vectors.shape[1]} numbers cannot be shortened again; start from the whole one"
            )
        pca = fit_pca(self.vectors, dims=dims)
        return Index(space=self.space, documents=self.documents, vectors=apply_pca(self.vectors, pca), pca=pca)

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write the index, whole or not at all; ``force`` replaces an index that is there.

        Raises:
            BundleError: ``folder`` is there, and neither empty nor an index to be replaced.
        """
        self.check_target(folder, force=force)
        with whole_folder(folder) as new:
            write_npy(new / VECTORS, np.asarray(self.vectors, dtype=np.float16))
            if self.pca is not None:
                write_npy(new / PCA_FILE, self.pca)
            lines = (json.dumps({"id": key, "text": text}, ensure_ascii=False) + "\n" for key, text in self.documents)
            write_text(new / DOCUMENTS, "".join(lines))
            header = {"schema_version": INDEX_SCHEMA, "space": asdict(self.space), "documents": len(self.documents)}
            write_json(new / HEADER, header | {"dims": self.vectors.shape[1]})

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
            if header["schema_version"] not in READABLE:
                raise BundleError(
                    f"{folder}: index of schema version {header['schema_version']}, this edgeleaf reads "
                    f"{INDEX_SCHEMA} and older; make it again"
                )
            lines = (folder / DOCUMENTS).read_text(encoding="utf-8").split("\n")
            documents = [(str(row["id"]), str(row["text"])) for row in map(json.loads, filter(None, lines))]
            vectors = np.load(folder / VECTORS, mmap_mode="r")
            short = header.get("dims", header["space"]["dim"]) != header["space"]["dim"]
            pca = np.load(folder / PCA_FILE) if short else None
            return Index(space=VectorSpace(**header["space"]), documents=documents, vectors=vectors, pca=pca)
        except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{folder}: damaged index ({error}); make it again") from None

    def search(self, queries: npt.NDArray[np.float32], *, space: VectorSpace, k: int = 10) -> list[list[Hit]]:
        """Find the ``k`` documents nearest to each query, nearest first.

        Args:
            queries: float32 [n, space.dim], unit L2 norm; an index with ``pca`` shortens them itself. Without it they
                may have fewer numbers (Matryoshka), and the documents are cut alike.
            space: the space that the queries were encoded in, ``QueryEncoder.space``.
            k: how many.

        Raises:
            BundleError: the queries are of another space; the message names both.
            InputError: cut queries for an index that shortens them itself.
        """
        if space.identity() != self.space.identity():
            raise BundleError(
                f"queries of the space {space.id} cannot search an index of the space {self.space.id}; "
                "encode them with a bundle of that space, or index the documents again"
            )
        if self.pca is not None:
            queries = apply_pca(queries, self.pca)
        scores = np.empty((len(queries), len(self.documents)), dtype=np.float32)
        for start in range(0, len(self.documents), _CHUNK):
            chunk = np.asarray(self.vectors[start : start + _CHUNK], dtype=np.float32)
            scores[:, start : start + _CHUNK] = queries @ truncate(chunk, queries.shape[1]).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]

        def hit(i: int, row: int) -> Hit:
            key, text = self.documents[row]
            return Hit(key, text, float(scores[i, row]))

        return [[hit(i, row) for row in rows] for i, rows in enumerate(best)]
