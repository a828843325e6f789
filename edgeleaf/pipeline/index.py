"""Makes an index from documents, and searches one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeleaf import progress
from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import BundleError
from edgeleaf.extras import require
from edgeleaf.pipeline.places import work_folder
from edgeleaf.stages.lock import locked
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.texts.text import Text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeleaf.search.index import Hit, Index
    from edgeleaf.texts.documents import Document

INDEX_CACHE = "index-vectors"
"""Name, in the folder of work, of the teacher vectors of an index that is being made; no stage has this name."""


@dataclass(frozen=True)
class Indexed:
    """The result of :func:`make_index`.

    Args:
        index: the index, opened from its folder.
        window: how many tokens of a document the teacher reads.
        cut: how many documents, or passages, are longer than that.
    """

    index: Index
    window: int
    cut: int


def index(
    bundle: str | Path,
    documents: str | Path,
    *,
    output: str | Path,
    pca_dims: int | None = None,
    passages: bool = False,
    force: bool = False,
) -> Index:
    """Encode documents with a bundle's teacher and write an index that the bundle's queries can search.

    Args:
        bundle: a bundle folder; its teacher must be available.
        documents: BEIR's corpus.jsonl, or .txt with one document per line, gzipped or not.
        output: folder of the index.
        pca_dims: shorten the vectors to this many numbers, along the documents' principal axes; None keeps their width.
        passages: cut documents that are longer than the teacher's own window into passages, with the ids ``ID#1``,
            ``ID#2``, ...; otherwise text after the window is not searched.
        force: replace an existing index.

    Raises:
        BundleError, ModelError, TextsError: the bundle is damaged, its teacher or the documents are not available, or
            another run is at work on this output.
        InputError: ``pca_dims`` below 1, or not below the space's width.
    """
    return make_index(bundle, documents, output=output, pca_dims=pca_dims, passages=passages, force=force).index


def make_index(
    bundle: str | Path,
    documents: str | Path,
    *,
    output: str | Path,
    pca_dims: int | None = None,
    passages: bool = False,
    force: bool = False,
) -> Indexed:
    """Like :func:`index`, but also return what was cut."""
    from edgeleaf.search.pca import check_dims
    from edgeleaf.search.stores import store_of
    from edgeleaf.texts.documents import titled_documents

    store, target = store_of(output), Path(output)
    manifest = Manifest.read(Path(bundle))
    store.check_target(target, force=force)
    if pca_dims is not None:
        check_dims(pca_dims, manifest.space.dim)
    found = titled_documents(Path(documents))
    require("index")
    work = work_folder(target)
    try:
        with locked(work):
            pairs, vectors, window, cut = _encoded(manifest, found, work / INDEX_CACHE, passages=passages)
            made = store(space=manifest.space, documents=pairs, vectors=vectors)
            if pca_dims is not None:
                made = made.shortened(pca_dims)
            made.save(target, force=force)
            shutil.rmtree(work / INDEX_CACHE, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"{output}: the index cannot be made there: {error.strerror or error}") from None
    return Indexed(store.load(target), window, cut)


def _encoded(
    manifest: Manifest, documents: Sequence[Document], cache: Path, *, passages: bool
) -> tuple[list[tuple[str, str]], npt.NDArray[np.float16], int, int]:
    """Return (id, text) pairs, the teacher's vectors of them, its window, and how many texts are longer than that."""
    from edgeleaf.teachers.cache import teacher_vectors
    from edgeleaf.teachers.window import Window, own_window

    teacher = teacher_of(manifest)
    tokens = own_window(teacher.folder, at_least=manifest.teacher_max_length)
    teacher.widen(tokens)
    window = Window(teacher.folder, tokens=tokens, prompt=manifest.space.document_prompt)
    if passages:
        pairs = window.passages(documents)
        if len(pairs) > len(documents):
            progress.say(f"{len(documents):,} documents, cut into {len(pairs):,} passages of at most {tokens} tokens")
    else:
        pairs = [(document.id, document.text) for document in documents]
    cut = len(window.longer([text for _, text in pairs]))
    if cut:
        advice = "" if passages else "; --passages cuts them into parts that are"
        trained = manifest.teacher_max_length
        progress.say(
            f"{cut:,} of {len(pairs):,} documents are longer than {tokens} tokens, the teacher's own window (the "
            f"bundle was made with {trained}); what comes after is not searched{advice}"
        )
    texts = [Text(text, "document") for _, text in pairs]
    return pairs, teacher_vectors(texts, teacher, cache, file=cache / "vectors.npy"), tokens, cut


def search_index(
    bundle: str | Path, index_folder: str | Path, queries: Sequence[str], *, k: int = 10
) -> list[list[Hit]]:
    """Find the documents nearest to each query; needs only numpy and onnxruntime.

    Raises:
        BundleError: the bundle or the index cannot be used, or they are of different vector spaces.
        InputError: the queries are not a list of strings.
    """
    from edgeleaf.search.stores import store_of

    opened, encoder = store_of(index_folder).load(index_folder), QueryEncoder.load(bundle)
    return opened.search(encoder.encode(queries), space=encoder.space, k=k)
