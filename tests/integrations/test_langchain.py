"""The bundle in the real LangChain: vectors, its in-memory store, threads, pickles."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from edgeleaf import BundleError, InputError, ModelError, QueryEncoder, index
from edgeleaf.integrations.langchain import EdgeleafEmbeddings, EdgeleafRetriever
from edgeleaf.pipeline.index import search_index
from tests.conftest import REFERENCE, computing_in_float32
from tests.integrations.conftest import DOCUMENTS, QUERIES, K, Own, one_line


@pytest.fixture(scope="module")
def embeddings(tiny_bundle: Path) -> EdgeleafEmbeddings:
    return EdgeleafEmbeddings(tiny_bundle)


def test_vectors(embeddings: EdgeleafEmbeddings, own: Own) -> None:
    assert isinstance(embeddings, Embeddings)
    assert [embeddings.embed_query(query) for query in QUERIES] == own.queries.tolist()
    np.testing.assert_allclose(embeddings.embed_documents(DOCUMENTS), own.documents, atol=1e-5)
    assert embeddings.embed_documents([]) == []
    assert {type(number) for number in embeddings.embed_query("a")} == {float}


def test_asynchronous(embeddings: EdgeleafEmbeddings, own: Own) -> None:
    async def ask() -> tuple[list[list[float]], list[list[float]]]:
        queries = await asyncio.gather(*(embeddings.aembed_query(query) for query in QUERIES))
        return list(queries), await embeddings.aembed_documents(DOCUMENTS[:3])

    queries, documents = asyncio.run(ask())
    assert queries == own.queries.tolist()
    np.testing.assert_allclose(documents, own.documents[:3], atol=1e-5)


def test_its_store_ranks_as_edgeleaf_does(embeddings: EdgeleafEmbeddings, own: Own) -> None:
    store = InMemoryVectorStore(embeddings)
    store.add_documents([Document(text, id=str(n)) for n, text in enumerate(DOCUMENTS)])
    for query, nearest, scores in zip(QUERIES, own.nearest, own.scores, strict=True):
        found = store.similarity_search_with_score(query, k=K)
        assert [document.page_content for document, _ in found] == nearest
        np.testing.assert_allclose([score for _, score in found], scores, atol=1e-4)
    retriever = store.as_retriever(search_kwargs={"k": K})
    assert [document.page_content for document in asyncio.run(retriever.ainvoke(QUERIES[0]))] == own.nearest[0]


def test_a_retriever_finds_what_edgeleaf_finds(
    tiny_bundle: Path, own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"_id": text, "text": text, "long": len(text) > 60} for text in DOCUMENTS]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    place = f"sqlite:///{tmp_path / 'd.db'}"
    with computing_in_float32():
        index(tiny_bundle, tmp_path / "d.jsonl", output=place).close()
    retriever = EdgeleafRetriever(bundle=str(tiny_bundle), store=place, k=K)
    hits = search_index(tiny_bundle, place, QUERIES, k=K)
    for query, row, scores in zip(QUERIES, hits, own.scores, strict=True):  # by float16, so near ties may change places
        found = retriever.invoke(query)
        assert [document.id for document in found] == [document.page_content for document in found]
        assert [document.id for document in found] == [hit.id for hit in row]
        np.testing.assert_allclose([document.metadata["score"] for document in found], scores, atol=1e-3)
    assert asyncio.run(retriever.ainvoke(QUERIES[0])) == retriever.invoke(QUERIES[0])
    chain = retriever | (lambda documents: [document.metadata["long"] for document in documents])
    assert chain.invoke(QUERIES[0]) == [len(hit.text) > 60 for hit in hits[0]]
    only = EdgeleafRetriever(bundle=str(tiny_bundle), store=place, k=3, where="long = true", hybrid=True)
    found = only.invoke(DOCUMENTS[0])
    assert len(found) == 3 and all(document.metadata["long"] for document in found)
    for opened in (only, retriever):
        opened.close()
    with pytest.raises(InputError, match="k is 0"):
        EdgeleafRetriever(bundle=str(tiny_bundle), store=place, k=0)
    with pytest.raises(BundleError, match="no-such"):
        EdgeleafRetriever(bundle=str(tiny_bundle), store=str(tmp_path / "no-such"))
    closed: list[object] = []
    real = type(retriever._opened).close
    monkeypatch.setattr(type(retriever._opened), "close", lambda self: closed.append(self) or real(self))
    with pytest.raises(BundleError, match="space"):
        EdgeleafRetriever(bundle=str(REFERENCE), store=place)
    assert len(closed) == 1, "the store is not left open"


def test_a_retriever_takes_paths_refuses_wrong_values_in_one_line_and_hides_the_password(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeleaf.integrations import langchain
    from edgeleaf.search import Index

    space = QueryEncoder.load(tiny_bundle).space
    vectors = np.eye(1, space.dim, dtype=np.float16)
    Index(space=space, documents=[("a", "b")], vectors=vectors).save(tmp_path / "store")
    retriever = EdgeleafRetriever(bundle=tiny_bundle, store=tmp_path / "store")
    assert [found.id for found in retriever.invoke("lost parcel")] == ["a"]
    url = "postgresql://me:topsecret@host/docs"
    for wrong in ({"k": "x"}, {"k": 1.5}, {"where": 5}, {"hybrid": "maybe"}, {"store": None}, {"threads": 0}):
        with pytest.raises(InputError) as caught:
            EdgeleafRetriever(**{"bundle": tiny_bundle, "store": url, **wrong})
        assert next(iter(wrong)) in str(caught.value), wrong
        assert "\n" not in str(caught.value) and "topsecret" not in str(caught.value)
    monkeypatch.setattr(langchain, "open_store", lambda place: retriever._opened)
    hidden = EdgeleafRetriever(bundle=tiny_bundle, store=url)
    for shown in (repr(hidden), str(hidden)):
        assert "topsecret" not in shown and "postgresql://me:***@host/docs" in shown
    retriever.close()


def test_pickle(embeddings: EdgeleafEmbeddings, own: Own) -> None:
    again = pickle.loads(pickle.dumps(embeddings))
    assert again.embed_query(QUERIES[0]) == own.queries[0].tolist()
    assert again.space == embeddings.space


def test_the_teacher_is_opened_with_the_first_document(tiny_bundle: Path) -> None:
    embeddings = EdgeleafEmbeddings(tiny_bundle)
    embeddings.embed_query("lost parcel")
    assert "_teacher" not in vars(embeddings._sides)
    embeddings.embed_documents(["lost parcel"])
    assert "_teacher" in vars(embeddings._sides)


def test_without_the_teacher(without_teacher: Path) -> None:
    embeddings = EdgeleafEmbeddings(without_teacher)
    assert embeddings.embed_query("lost parcel")
    with pytest.raises(ModelError, match="the teacher nobody/no-such-teacher"):
        InMemoryVectorStore.from_texts(["a"], embeddings)


def test_bad_input(embeddings: EdgeleafEmbeddings, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        EdgeleafEmbeddings(tmp_path)
    with pytest.raises(InputError):
        embeddings.embed_query(None)  # type: ignore[arg-type]
    assert "one str" in one_line(lambda: embeddings.embed_documents("a text"))  # type: ignore[arg-type]
