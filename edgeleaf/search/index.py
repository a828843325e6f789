"""An exact index of teacher vectors on disk: a matrix, the documents beside it, and the space they live in.

A folder with ``index.json`` (schema version, vector space, count, width), ``vectors.npy`` (float16 [n, dims], unit L2
norm), ``documents.jsonl`` (one ``{"id", "text"}`` per line) and, if its vectors are shorter than the space's,
``pca.npy`` (float32 [dim, dims]): a query's vector is multiplied by this matrix and normalised again before it is
compared.

Needs only numpy. Vectors and texts stay on disk until they are needed, so a few million documents need little memory.
As a store, with updates, filters, key words and smaller vectors, it is :mod:`edgeleaf.search.folder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.space import VectorSpace
from edgeleaf.errors import BundleError, InputError
from edgeleaf.files import whole_folder, write_json, write_npy
from edgeleaf.search import stored
from edgeleaf.search.exact import top_k
from edgeleaf.search.header import (
    DOCUMENTS,
    HEADER,
    PCA_FILE,
    VECTORS,
    damaged,
    read_header,
    space_of_header,
    whole_number,
)
from edgeleaf.search.passages import Hit
from edgeleaf.search.pca import apply_pca, fit_pca
from edgeleaf.search.store import check_k, check_space, checked_queries
from edgeleaf.search.stored import StoredDocuments
from edgeleaf.vectors import is_whole

INDEX_SCHEMA = 2
CODED_SCHEMA = 3
"""Of a folder whose vectors are int8 or bits, which :class:`Index` does not read; see edgeleaf.search.folder."""
READABLE = (1, 2)
"""Version 1 had neither ``dims`` nor ``pca.npy``; otherwise it is the same."""
_CHUNK = 16_384


class Index:
    """Teacher-encoded documents, ready for a query encoder of the same space.

    Args:
        space: the vector space.
        documents: (id, text) pairs; a list, or a sequence that reads them when they are needed.
        vectors: [len(documents), dims], unit L2 norm, any float type, memory-mapped or not.
        pca: float32 [space.dim, dims], the axes along which vectors were shortened (:func:`edgeleaf.search.fit_pca`);
            None if they have the space's width.

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
            BundleError: they are already short.
        """
        if self.pca is not None:
            raise BundleError(
                f"an index of {self.vectors.shape[1]} numbers cannot be shortened again; start from the whole one"
            )
        pca = fit_pca(self.vectors, dims=dims)
        short = np.empty((len(self.documents), dims), dtype=np.float16)
        for start in range(0, len(short), _CHUNK):
            short[start : start + _CHUNK] = apply_pca(self.vectors[start : start + _CHUNK], pca)
        return Index(space=self.space, documents=self.documents, vectors=short, pca=pca)

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write the index completely or not at all; ``force`` replaces an existing index.

        Raises:
            BundleError: ``folder`` exists, and is neither empty nor an index to be replaced; it cannot be written; a
                vector holds numbers that are not finite; a document is not a pair of strings.
        """
        self.check_target(folder, force=force)
        try:
            with whole_folder(folder) as new:
                stored.write_matrix(new / VECTORS, self.vectors)
                if self.pca is not None:
                    write_npy(new / PCA_FILE, self.pca)
                stored.write_documents(new / DOCUMENTS, self.documents)
                header = {
                    "schema_version": INDEX_SCHEMA,
                    "space": self.space.record(),
                    "documents": len(self.documents),
                }
                write_json(new / HEADER, header | {"dims": self.vectors.shape[1]})
        except OSError as error:
            raise BundleError(f"{folder}: the index cannot be written there: {error.strerror or error}") from None

    @staticmethod
    def check_target(folder: Path, *, force: bool = False) -> None:
        """Raise BundleError if :meth:`save` would."""
        try:
            if (folder / HEADER).is_file():
                if not force:
                    raise BundleError(f"{folder} is an index already; give a new folder, or --force to replace it")
            elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
                raise BundleError(f"{folder} exists and is not an index; give a new folder, or one that edgeleaf wrote")
        except OSError as error:
            raise BundleError(f"{folder}: cannot be inspected: {error.strerror or error}") from None

    @staticmethod
    def load(folder: str | Path) -> Index:
        """Open an index; vectors and texts stay on disk, memory-mapped.

        Raises:
            BundleError: no such index, a damaged one (the message names the file), or another schema version.
        """
        folder = Path(folder)
        try:
            if not folder.is_dir():
                kind = "is a file, not the folder of an index" if folder.exists() else "no such index folder"
                raise BundleError(f"{folder}: {kind}; make one with: edgeleaf index")
            if not (folder / HEADER).exists() and not (folder / HEADER).is_symlink():
                raise BundleError(f"{folder} is not an index: it has no {HEADER}; make one with: edgeleaf index")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BundleError(f"{folder}: the index cannot be opened: {reason}") from None
        header = read_header(folder)
        version = header.get("schema_version")
        if not is_whole(version):
            raise damaged(folder, HEADER, "schema_version is not a whole number")
        if version not in READABLE:
            if version == CODED_SCHEMA:
                raise BundleError(f"{folder}: its vectors are not float16; open it with edgeleaf.search.open_store")
            raise BundleError(
                f"{folder}: index of schema version {str(version)[:20]}, this edgeleaf reads {CODED_SCHEMA} and older; "
                "make it again"
            )
        space = space_of_header(header, folder)
        count = whole_number(header, "documents", folder)
        dims = space.dim if version == 1 else whole_number(header, "dims", folder)
        if not 1 <= dims <= space.dim:
            raise damaged(folder, HEADER, f"dims is not within 1 to {space.dim}")
        documents = StoredDocuments(folder)
        if len(documents) != count:
            raise damaged(folder, DOCUMENTS, f"{len(documents)} documents; {HEADER} has {str(count)[:20]}")
        vectors = stored.read_matrix(folder, VECTORS, rows=count, width=dims)
        pca = None
        if dims != space.dim:
            pca = np.array(stored.read_matrix(folder, PCA_FILE, rows=space.dim, width=dims), dtype=np.float32)
        return Index(space=space, documents=documents, vectors=vectors, pca=pca)

    def search(self, queries: npt.NDArray[np.float32], *, space: VectorSpace, k: int = 10) -> list[list[Hit]]:
        """Find the ``k`` documents nearest to each query, nearest first; of equals, the one that was indexed first.

        The search is exact. Memory grows with the number of hits only, not with queries times documents.

        Args:
            queries: float32 [n, space.dim], unit L2 norm; an index with ``pca`` shortens them itself. Without it they
                may have fewer numbers (Matryoshka), and documents are cut to the same width.
            space: the space that the queries were encoded in, ``QueryEncoder.space``.
            k: how many, from 1; if the index has fewer documents, all of them are returned.

        Raises:
            BundleError: the queries are of another space (the message names both), or the index is damaged.
            InputError: queries that are not a matrix of finite float numbers of this width; ``k`` that is not a whole
                number from 1; cut queries for an index that shortens them itself.
        """
        check_k(k)
        asked = checked_queries(queries)
        check_space(space, self.space)
        width = self.vectors.shape[1]
        if self.pca is not None:
            asked = apply_pca(asked, self.pca)
        elif not 1 <= asked.shape[1] <= width:
            raise InputError(f"queries of shape {asked.shape}; [n, {width}] is needed, or fewer numbers (Matryoshka)")
        return [
            [Hit(*self.documents[int(row)], float(score)) for row, score in zip(rows, scores, strict=True)]
            for rows, scores in top_k(asked, self.vectors, int(k))
        ]
