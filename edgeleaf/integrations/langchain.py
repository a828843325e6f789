"""A bundle as LangChain's ``Embeddings``: queries by the fused file, documents by the teacher; a store as a retriever.

    from langchain_core.vectorstores import InMemoryVectorStore
    from edgeleaf.integrations.langchain import EdgeleafEmbeddings, EdgeleafRetriever

    store = InMemoryVectorStore(EdgeleafEmbeddings("out/mpnet"))
    retriever = EdgeleafRetriever(bundle="out/mpnet", store="sqlite:///docs.db")  # what `edgeleaf index` wrote

The asynchronous methods are LangChain's own: they run these in threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import InputError, reason_of
from edgeleaf.extras import no_framework
from edgeleaf.integrations.sides import Sides
from edgeleaf.places import without_password
from edgeleaf.search.store import Store, check_k, check_space
from edgeleaf.search.stores import open_store

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ValidationError
except ImportError as error:
    raise no_framework(error, extra="langchain") from None


class EdgeleafEmbeddings(Embeddings):  # type: ignore[misc]
    """A bundle behind LangChain's ``Embeddings``. Can be pickled, and shared between threads.

    Args:
        bundle: a bundle folder. Its teacher is opened with the first document.
        threads: processor threads of the fused file.

    Raises:
        BundleError: no such bundle, or a damaged one.
    """

    def __init__(self, bundle: str | Path, *, threads: int = 1) -> None:
        self._sides = Sides(bundle, threads=threads).open()

    @property
    def space(self) -> VectorSpace:
        """The vector space; ``space.id`` is a namespace for LangChain's ``CacheBackedEmbeddings``."""
        return self._sides.space

    def embed_query(self, text: str) -> list[float]:
        """Encode a query; unit L2 norm."""
        vector: list[float] = self._sides.queries([text])[0].tolist()
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Encode documents with the teacher; unit L2 norm.

        Raises:
            ModelError, MissingExtra: the teacher cannot be opened here.
        """
        vectors: list[list[float]] = self._sides.documents(texts).tolist()
        return vectors

    def __repr__(self) -> str:
        return f"EdgeleafEmbeddings({self._sides.bundle!r})"


class EdgeleafRetriever(BaseRetriever):  # type: ignore[misc]
    """A store that ``edgeleaf index`` filled, as LangChain's retriever; it needs no teacher.

    A document's ``metadata`` are its columns, and ``score``: the cosine, or in a hybrid search the joined score.

    Args:
        bundle: a bundle folder of the store's vector space.
        store: the store's place, a path or a URL, see :func:`edgeleaf.search.open_store`.
        k: documents per query.
        where: a filter over the documents' metadata (:mod:`edgeleaf.search.filters`).
        hybrid: also search for the query's words.
        threads: processor threads of the fused file.

    Raises:
        BundleError: no such bundle or store, a damaged one, or they are of different vector spaces.
        InputError: ``k`` is no whole number from 1, or another argument is of the wrong kind; when it searches,
            ``where`` is no filter for this store.
    """

    bundle: str
    store: str
    k: int = 5
    where: str | None = None
    hybrid: bool = False
    threads: int = 1
    _sides: Sides
    _opened: Store

    def __init__(self, **given: Any) -> None:
        if "k" in given:
            check_k(given["k"])
        paths = {name: str(given[name]) for name in ("bundle", "store") if isinstance(given.get(name), Path)}
        try:
            super().__init__(**given | paths)
        except ValidationError as error:  # whose own words hold what was given, passwords too
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(map(str, first["loc"])) or type(self).__name__
            raise InputError(f"{name}: {reason_of(first['msg'])}") from None

    def __repr_args__(self) -> Any:
        """The fields for ``repr`` and ``str``; without the store's password."""
        for name, value in super().__repr_args__():
            yield name, without_password(value) if name == "store" else value

    def model_post_init(self, context: Any) -> None:
        """Open both; LangChain's, after the arguments were read."""
        super().model_post_init(context)
        self._sides = Sides(self.bundle, threads=self.threads).open()
        self._opened = open_store(self.store)
        try:
            check_space(self._sides.space, self._opened.space)
        except BaseException:
            self._opened.close()
            raise

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        words = [query] if self.hybrid else None
        vectors, space = self._sides.queries([query]), self._sides.space
        hits = self._opened.search(vectors, space=space, k=self.k, where=self.where, words=words)[0]
        return [Document(hit.text, id=hit.id, metadata={**hit.metadata, "score": hit.score}) for hit in hits]

    def close(self) -> None:
        """Close the store."""
        self._opened.close()
