"""Documents to an index, and the search of one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.extras import require
from edgeleaf.pipeline.places import work_folder
from edgeleaf.stages.vectors import VECTOR_CACHE
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.texts.text import Text

if TYPE_CHECKING:
    from edgeleaf.search.index import Hit, Index


def index(
    bundle: str | Path, documents: str | Path, *, output: str | Path, pca_dims: int | None = None, force: bool = False
) -> Index:
    """Encode documents with a bundle's teacher and write an index that the bundle's queries can search.

    Args:
        bundle: a bundle folder; its teacher must be within reach.
        documents: BEIR's corpus.jsonl, or .txt with a document a line, gzipped or not.
        output: folder of the index.
        pca_dims: shorten the vectors to so many numbers, along the documents' principal axes; None keeps them whole.
        force: replace an index that is there.

    Raises:
        BundleError, ModelError, TextsError: the bundle is damaged, its teacher or the documents cannot be had.
        InputError: ``pca_dims`` below 1, or not below the space's width.
    """
    from edgeleaf.search.index import Index
    from edgeleaf.search.pca import check_dims
    from edgeleaf.teachers.cache import teacher_vectors
    from edgeleaf.texts.documents import read_documents

    manifest, target = Manifest.read(Path(bundle)), Path(output)
    Index.check_target(target, force=force)
    if pca_dims is not None:
        check_dims(pca_dims, manifest.space.dim)
    pairs = read_documents(Path(documents))
    require("index")
    texts = [Text(text, "document") for _, text in pairs]
    cache = work_folder(target) / VECTOR_CACHE
    made = Index(space=manifest.space, documents=pairs, vectors=teacher_vectors(texts, teacher_of(manifest), cache))
    if pca_dims is not None:
        made = made.shortened(pca_dims)
    made.save(target, force=force)
    shutil.rmtree(work_folder(target), ignore_errors=True)
    return made


def search_index(
    bundle: str | Path, index_folder: str | Path, queries: Sequence[str], *, k: int = 10
) -> list[list[Hit]]:
    """Find the documents nearest to each query; needs numpy and onnxruntime only.

    Raises:
        BundleError: the bundle or the index cannot be used, or they are of different vector spaces.
        InputError: what is given is no list of strings.
    """
    from edgeleaf.search.index import Index

    opened, encoder = Index.load(index_folder), QueryEncoder.load(bundle)
    return opened.search(encoder.encode(queries), space=encoder.space, k=k)
