"""The bundle in the real LlamaIndex: vectors, its vector index, threads, pickles, dictionaries."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from edgeleaf import BundleError, InputError, ModelError
from edgeleaf.integrations.llama_index import EdgeleafEmbedding
from tests.integrations.conftest import DOCUMENTS, QUERIES, K, Own, one_line


@pytest.fixture(scope="module")
def embedding(tiny_bundle: Path) -> EdgeleafEmbedding:
    return EdgeleafEmbedding(tiny_bundle)


def nodes() -> list[TextNode]:
    return [TextNode(text=text, id_=str(n)) for n, text in enumerate(DOCUMENTS)]


def test_vectors(embedding: EdgeleafEmbedding, own: Own) -> None:
    assert [embedding.get_query_embedding(query) for query in QUERIES] == own.queries.tolist()
    np.testing.assert_allclose(embedding.get_text_embedding_batch(DOCUMENTS), own.documents, atol=1e-5)
    np.testing.assert_allclose(embedding.get_text_embedding(DOCUMENTS[3]), own.documents[3], atol=1e-5)
    assert embedding.get_text_embedding_batch([]) == []


def test_asynchronous(embedding: EdgeleafEmbedding, own: Own) -> None:
    async def ask() -> tuple[list[list[float]], list[list[float]], list[float]]:
        queries = await asyncio.gather(*(embedding.aget_query_embedding(query) for query in QUERIES))
        documents = await embedding.aget_text_embedding_batch(DOCUMENTS)
        return list(queries), documents, await embedding.aget_text_embedding(DOCUMENTS[0])

    queries, documents, first = asyncio.run(ask())
    assert queries == own.queries.tolist()
    np.testing.assert_allclose(documents, own.documents, atol=1e-5)
    np.testing.assert_allclose(first, own.documents[0], atol=1e-5)


def test_its_index_ranks_as_edgeleaf_does(embedding: EdgeleafEmbedding, own: Own) -> None:
    retriever = VectorStoreIndex(nodes(), embed_model=embedding).as_retriever(similarity_top_k=K)
    for query, nearest, scores in zip(QUERIES, own.nearest, own.scores, strict=True):
        found = retriever.retrieve(query)
        assert [hit.node.get_content() for hit in found] == nearest
        np.testing.assert_allclose([hit.score for hit in found], scores, atol=1e-4)


def test_in_a_pipeline(embedding: EdgeleafEmbedding, own: Own) -> None:
    made = IngestionPipeline(transformations=[embedding]).run(nodes=nodes())
    np.testing.assert_allclose([node.embedding for node in made], own.documents, atol=1e-5)


def test_pickle(embedding: EdgeleafEmbedding, own: Own) -> None:
    again = pickle.loads(pickle.dumps(embedding))
    assert again.get_query_embedding(QUERIES[0]) == own.queries[0].tolist()


def test_dictionary(embedding: EdgeleafEmbedding, own: Own) -> None:
    data = embedding.to_dict()
    assert data["class_name"] == "EdgeleafEmbedding"
    assert data["model_name"] == f"edgeleaf/{embedding.space.id}"
    again = EdgeleafEmbedding.from_dict(data)
    assert again.to_dict() == data
    assert again.get_query_embedding(QUERIES[1]) == own.queries[1].tolist()


def test_the_teacher_is_opened_with_the_first_node(tiny_bundle: Path) -> None:
    embedding = EdgeleafEmbedding(bundle=tiny_bundle, threads=2)
    embedding.get_query_embedding("lost parcel")
    assert "_teacher" not in vars(embedding._sides)
    embedding.get_text_embedding("lost parcel")
    assert "_teacher" in vars(embedding._sides)


def test_without_the_teacher(without_teacher: Path) -> None:
    embedding = EdgeleafEmbedding(without_teacher)
    assert embedding.get_query_embedding("lost parcel")
    with pytest.raises(ModelError, match="the teacher nobody/no-such-teacher"):
        VectorStoreIndex(nodes(), embed_model=embedding)


def test_bad_input(embedding: EdgeleafEmbedding, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        EdgeleafEmbedding(tmp_path)
    with pytest.raises(InputError, match="whole number"):
        EdgeleafEmbedding(tiny_bundle, threads=0)
    with pytest.raises(InputError):
        embedding._get_text_embeddings([None])  # type: ignore[list-item]
    # The same text has two vectors here, and that cache would give a query the document's.
    message = one_line(lambda: EdgeleafEmbedding(tiny_bundle, embeddings_cache=SimpleKVStore()))
    assert message.startswith("embeddings_cache keeps one vector per text")
