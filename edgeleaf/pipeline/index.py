"""Makes a store of documents, or brings it up to date, and searches one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeleaf import progress
from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import BundleError, InputError
from edgeleaf.extras import require
from edgeleaf.files import cache_root
from edgeleaf.pipeline.changes import differences
from edgeleaf.pipeline.places import work_folder
from edgeleaf.places import kind_of, named, without_password
from edgeleaf.remote import Place, is_url, knows
from edgeleaf.stages.lock import locked
from edgeleaf.teachers.opening import teacher_of, teacher_spec
from edgeleaf.teachers.window import AT_A_TIME
from edgeleaf.texts.inputs import no_document, read_input
from edgeleaf.texts.spool import View, in_pieces
from edgeleaf.texts.text import Text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeleaf.distributed.engine import Cluster
    from edgeleaf.search.passages import Dtype, Hit, Passage
    from edgeleaf.search.store import Store
    from edgeleaf.teachers.base import Teacher
    from edgeleaf.texts.inputs import Input
    from edgeleaf.texts.spool import Ids

INDEX_CACHE, SHARDS = "index-vectors", "shards"
"""Names, in the folder of work, of the teacher vectors of an index, and of a cluster's shards; no stage has these."""


@dataclass(frozen=True)
class Counts:
    """What a run has done. All but ``documents`` and ``left_out`` count passages; a document is one unless it was cut.

    Args:
        documents: in the input.
        passages: that they make; ``encoded + updated + unchanged``.
        encoded: new, or with another text than before.
        updated: with the text that the store had under that id, but other metadata, or from another input.
        unchanged: that the store had just so.
        deleted: that have gone from the store.
        cut: longer than the teacher's window, so that their end is not searched.
        left_out: files or rows of the input that are no documents.
    """

    documents: int
    passages: int
    encoded: int
    updated: int
    unchanged: int
    deleted: int
    cut: int
    left_out: int


@dataclass(frozen=True)
class Indexed:
    """The result of :func:`make_index`.

    Args:
        place: where it is, as the user named it, without a password.
        index: the store, opened; closed again if its files were copied to a URL.
        window: how many tokens of a document the teacher reads.
        counts: what was done.
    """

    place: str
    index: Store
    window: int
    counts: Counts

    def plain(self) -> dict[str, Any]:
        """Return it for JSON, counts last."""
        layout = self.index.layout
        return {
            "store": self.place,
            "space": layout.space.id,
            "dtype": layout.dtype,
            "dims": layout.dims,
            **asdict(self.counts),
        }


def index(
    bundle: str | Path,
    documents: str | Path,
    *,
    output: str | Path,
    dtype: Dtype | None = None,
    pca_dims: int | None = None,
    passages: bool = False,
    columns: Mapping[str, str] | None = None,
    force: bool = False,
    cluster: Cluster | None = None,
) -> Store:
    """Encode documents with a bundle's teacher into a store that the bundle's queries can search.

    A store that is there already is brought up to date: only passages whose text is new are encoded. What a folder no
    longer has goes from the store, if it came from a folder; what a file or standard input no longer has goes if it
    came from that file, or from standard input. An id that the store has from another input is refused, unless its text
    is the same.

    Args:
        bundle: a bundle folder; its teacher must be available.
        documents: a folder of Markdown and text files, a file (``.jsonl`` as in BEIR, ``.csv``, ``.tsv``,
            ``.parquet``, ``.txt`` with one document per line) here or at a URL, or ``-`` for standard input.
        output: a folder, or the URL of a store, see :func:`edgeleaf.search.open_store`; or a URL such as
            ``s3://bucket/index``, to which a new folder is copied.
        dtype: ``float16``, ``int8`` or ``bit``; None for the store's own, float16 for a new one.
        pca_dims: shorten the vectors to this many numbers, along the documents' principal axes; None keeps their width,
            or the store's own.
        passages: cut documents that are longer than the teacher's own window into passages, with the ids ``ID#1``,
            ``ID#2``, ...; otherwise text after the window is not searched. Files of a folder are always cut.
        columns: names of the input's columns by what they hold: ``text``, ``id``, ``title``.
        force: replace what is there by a new store.
        cluster: encode on Ray; the vectors are the same to the last bit on processors of one kind.

    Raises:
        BundleError, ModelError, TextsError: the bundle is damaged, its teacher or the documents are not available, the
            store is of another space or form or cannot be used, it has other texts under the same ids from another
            input, or another run is at work on it.
        InputError: ``pca_dims`` below 1, or not below the space's width; a ``dtype`` that the store cannot hold.
        PlaceError, ClusterError: a URL, the place for the shards or the cluster cannot be used.
    """
    return make_index(
        bundle,
        documents,
        output=output,
        dtype=dtype,
        pca_dims=pca_dims,
        passages=passages,
        columns=columns,
        force=force,
        cluster=cluster,
    ).index


def make_index(
    bundle: str | Path,
    documents: str | Path,
    *,
    output: str | Path,
    dtype: Dtype | None = None,
    pca_dims: int | None = None,
    passages: bool = False,
    columns: Mapping[str, str] | None = None,
    force: bool = False,
    cluster: Cluster | None = None,
) -> Indexed:
    """Like :func:`index`, but also return what was done."""
    from edgeleaf.search.passages import Layout
    from edgeleaf.search.pca import check_dims
    from edgeleaf.search.store import Change, check_keeps, check_same
    from edgeleaf.search.stores import store_of

    if is_remote(output):
        options = {"dtype": dtype, "pca_dims": pca_dims, "passages": passages, "columns": columns}
        return _uploaded(bundle, documents, str(output), force=force, cluster=cluster, options=options)
    kind, place = store_of(output), named(output)
    manifest = Manifest.read(Path(bundle))
    space = manifest.space
    check_keeps(kind, dtype or "float16")
    if pca_dims is not None:
        check_dims(pca_dims, space.dim)
    kind.check_place(place)
    work = _work(place)
    store: Store | None = None
    try:
        store = None if force else kind.opened(place)
        if store is not None:
            check_same(store, space, dtype=dtype, dims=pca_dims)
        if cluster is not None:
            cluster.check()
        found = read_input(documents, columns=columns, beside=work)
        require("index")
        with locked(work):
            if store is None and not force:
                store = kind.opened(place)
            if store is None and not found.items:
                raise no_document(without_password(str(documents)))
            if store is not None:
                check_same(store, space, dtype=dtype, dims=pca_dims)
            teacher, window, made, ids, cut = _passages(manifest, found, work, passages=passages)
            with nullcontext(()) if store is None else closing(store.known()) as known:
                # as it is now that nobody else changes it
                changes = differences(found, made, ids, known, without_password(str(documents)))
            new, renewed = (View(made, _as_it_is, rows) for rows in (changes.new, changes.renewed))
            if new or renewed or changes.deleted or store is None:
                vectors = _vectors(new, manifest, teacher, work, cluster)
                if store is None:
                    axes = None if pca_dims is None else _axes(vectors, pca_dims)
                    store = kind.new(place, Layout(space, dtype or "float16", axes))
                store.write(Change(new, vectors, renewed, changes.deleted, replace=force))
                for folder in (INDEX_CACHE, SHARDS):
                    shutil.rmtree(work / folder, ignore_errors=True)
    except BaseException as error:
        if store is not None:
            store.close()
        if isinstance(error, OSError):
            hidden = without_password(place)
            raise BundleError(f"{hidden}: the index cannot be made there: {error.strerror or error}") from None
        raise
    left_out = sum(map(len, found.left_out.values()))
    sizes = len(new), len(renewed), changes.unchanged, len(changes.deleted)
    counts = Counts(len(found.items), len(made), *sizes, cut, left_out)
    return Indexed(without_password(place), store, window, counts)


def _work(place: str) -> Path:
    """Return the folder of work: beside a store in a file or folder, in edgeleaf's cache for one on a server."""
    kind, _, rest = place.partition("://")
    if kind_of(place) == "folder":
        return work_folder(Path(place))
    if rest.startswith("/") and kind_of(place) not in ("postgresql", "postgres"):
        return work_folder(Path(rest[1:]))
    name = hashlib.sha256(without_password(place).encode(errors="replace")).hexdigest()[:16]
    return cache_root() / "stores" / f"{kind}-{name}.work"


def _passages(
    manifest: Manifest, found: Input, work: Path, *, passages: bool
) -> tuple[Teacher, int, Sequence[Passage], Ids, int]:
    """Return the teacher, its window, the passages, their ids, and how many of them are longer than the window."""
    from edgeleaf.pipeline.passages import passages_of

    teacher = teacher_of(manifest)
    window = teacher.widened(at_least=manifest.teacher_max_length)
    tokens = teacher.max_length
    if window is None:
        if passages or found.is_folder:
            raise InputError(
                f"{manifest.space.teacher} counts its tokens where it runs, so passages cannot be cut here; give "
                "documents that are passages already, in a file and without --passages"
            )
        progress.say(f"how many documents are longer than the window of {manifest.space.teacher} is not known here")
    made, ids = passages_of(found, window, cut=passages, beside=work)
    if len(made) > len(found.items):
        documents = f"{len(found.items):,} documents"
        progress.say(f"{documents}, cut into {len(made):,} passages of at most {tokens} tokens")
    cut = 0 if window is None else sum(len(window.longer(some)) for some in in_pieces(_texts(made), AT_A_TIME))
    if cut:
        advice = "" if passages or found.is_folder else "; --passages cuts them into parts that are"
        trained = manifest.teacher_max_length
        progress.say(
            f"{cut:,} of {len(made):,} documents are longer than {tokens} tokens, the teacher's own window (the "
            f"bundle was made with {trained}); what comes after is not searched{advice}"
        )
    return teacher, tokens, made, ids, cut


def _texts(passages: Iterable[Passage]) -> Iterator[str]:
    return (passage.text for passage in passages)


def _as_it_is(passage: Passage) -> Passage:
    return passage


def _to_encode(passage: Passage) -> Text:
    return Text(passage.text, "document")


def _vectors(
    passages: Sequence[Passage], manifest: Manifest, teacher: Teacher, work: Path, cluster: Cluster | None
) -> npt.NDArray[np.float16]:
    """Return the teacher's vectors of passages; a run that was stopped continues from the cache."""
    from edgeleaf.teachers.cache import in_turn, teacher_vectors

    cache, engine, shard = work / INDEX_CACHE, in_turn, None
    if cluster is not None:
        from edgeleaf.distributed.engine import RayEngine
        from edgeleaf.distributed.opening import Opening

        opening = Opening(teacher_spec(manifest), manifest.space, teacher.max_length, bundle=True)
        engine, shard = RayEngine(opening, cluster, beside=work / SHARDS), cluster.shard
    texts, file = View(passages, _to_encode), cache / "vectors.npy"
    return teacher_vectors(texts, teacher, cache, file=file, engine=engine, shard=shard)


def _uploaded(
    bundle: str | Path,
    documents: str | Path,
    url: str,
    *,
    force: bool,
    cluster: Cluster | None,
    options: Mapping[str, Any],
) -> Indexed:
    """Make a folder in edgeleaf's own cache, and copy its files to a URL, the header last."""
    from edgeleaf.search.header import HEADER

    place = Place(url)
    before = place.names()
    if HEADER in before and not force:
        raise BundleError(f"{place.shown} is an index already; give a new place, or --force to replace it")
    local = cache_root() / "uploads" / hashlib.sha256(place.name.encode()).hexdigest()[:16]
    if cluster is not None and cluster.place is None:
        cluster = replace(cluster, place=f"{place.name}.work", keep=False)
    try:
        made = make_index(bundle, documents, output=local, force=True, cluster=cluster, **options)
        made.index.close()
        names = sorted((path.name for path in local.iterdir()), key=lambda name: name == HEADER)
        if HEADER in before:
            place.remove(HEADER)  # so that nobody takes a mixture for an index
        for name in names:
            place.put(name, local / name)
    finally:
        shutil.rmtree(local, ignore_errors=True)
    return replace(made, place=place.shown)


def is_remote(output: str | Path) -> bool:
    """Return whether an index is to be copied to a URL: one that fsspec knows, and that is no store's."""
    from edgeleaf.search.stores import STORES

    return is_url(output) and kind_of(str(output)) not in STORES and knows(output)


def _axes(vectors: npt.NDArray[np.float16], dims: int) -> npt.NDArray[np.float32]:
    from edgeleaf.search.pca import fit_pca

    return fit_pca(vectors, dims=dims)


def search_index(
    bundle: str | Path,
    place: str | Path,
    queries: Sequence[str],
    *,
    k: int = 10,
    where: str | None = None,
    hybrid: bool = False,
) -> list[list[Hit]]:
    """Find the documents nearest to each query; without the teacher.

    Args:
        bundle: a bundle folder or a fused file.
        place: a store, see :func:`edgeleaf.search.open_store`.
        queries: the queries' texts.
        k: documents per query.
        where: a filter over the documents' metadata (:mod:`edgeleaf.search.filters`).
        hybrid: also search for the queries' words, and join both by reciprocal ranks.

    Raises:
        BundleError: the bundle or the store cannot be used, or they are of different vector spaces.
        InputError: the queries are not a list of strings, or ``where`` is no filter for this store.
    """
    from edgeleaf.search.stores import open_store

    opened, encoder = open_store(place), QueryEncoder.load(bundle)
    try:
        vectors, words = encoder.encode(queries), list(queries) if hybrid else None
        return opened.search(vectors, space=encoder.space, k=k, where=where, words=words)
    finally:
        opened.close()
