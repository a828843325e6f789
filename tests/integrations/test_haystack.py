"""The bundle in the real Haystack: its pipeline, its in-memory store, YAML, threads."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from edgeleaf import BundleError, InputError, ModelError
from edgeleaf.integrations.haystack import EdgeleafDocumentEmbedder, EdgeleafTextEmbedder
from tests.integrations.conftest import DOCUMENTS, QUERIES, K, Own, one_line

ROOT = Path(__file__).parents[2]


def documents() -> list[Document]:
    return [Document(id=str(n), content=text) for n, text in enumerate(DOCUMENTS)]


def searching(bundle: Path, store: Any) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("query", EdgeleafTextEmbedder(str(bundle)))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=K))
    pipeline.connect("query.embedding", "retriever.query_embedding")
    return pipeline


def indexing(bundle: Path, store: Any) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("documents", EdgeleafDocumentEmbedder(str(bundle)))
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("documents.documents", "writer.documents")
    return pipeline


def test_vectors(tiny_bundle: Path, own: Own) -> None:
    embedder = EdgeleafTextEmbedder(tiny_bundle)
    assert [embedder.run(query)["embedding"] for query in QUERIES] == own.queries.tolist()
    given = documents()
    made = EdgeleafDocumentEmbedder(tiny_bundle).run(given)
    np.testing.assert_allclose([document.embedding for document in made["documents"]], own.documents, atol=1e-5)
    assert [document.id for document in made["documents"]] == [document.id for document in given]
    assert {document.embedding for document in given} == {None}
    assert made["meta"] == embedder.run("a")["meta"]
    assert EdgeleafDocumentEmbedder(tiny_bundle).run([])["documents"] == []


def test_asynchronous(tiny_bundle: Path, own: Own) -> None:
    async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
        query = await EdgeleafTextEmbedder(tiny_bundle).run_async(QUERIES[0])
        return query, await EdgeleafDocumentEmbedder(tiny_bundle).run_async(documents()[:2])

    query, made = asyncio.run(ask())
    assert query["embedding"] == own.queries[0].tolist()
    np.testing.assert_allclose([document.embedding for document in made["documents"]], own.documents[:2], atol=1e-5)


def test_its_pipelines_rank_as_edgeleaf_does(tiny_bundle: Path, own: Own) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    assert indexing(tiny_bundle, store).run({"documents": {"documents": documents()}})["writer"] == {
        "documents_written": len(DOCUMENTS)
    }
    pipeline = searching(tiny_bundle, store)
    for query, nearest, scores in zip(QUERIES, own.nearest, own.scores, strict=True):
        found = pipeline.run({"query": {"text": query}})["retriever"]["documents"]
        assert [document.content for document in found] == nearest
        np.testing.assert_allclose([document.score for document in found], scores, atol=1e-4)


def test_meta_fields_go_before_the_text(tiny_bundle: Path) -> None:
    embedder = EdgeleafDocumentEmbedder(tiny_bundle, meta_fields_to_embed=["title", "none"], embedding_separator=" ")
    titled = embedder.run([Document(content="lost parcel", meta={"title": "river stone", "none": None})])
    plain = embedder.run([Document(content="river stone lost parcel")])
    assert titled["documents"][0].embedding == plain["documents"][0].embedding


def test_a_pipeline_as_yaml(tiny_bundle: Path, own: Own) -> None:
    store = InMemoryDocumentStore()
    for pipeline in (searching(tiny_bundle, store), indexing(tiny_bundle, store)):
        written = pipeline.dumps()
        assert Pipeline.loads(written).dumps() == written
    again = Pipeline.loads(searching(tiny_bundle, store).dumps())
    assert again.get_component("query").run(QUERIES[0])["embedding"] == own.queries[0].tolist()
    settings = {"bundle": "b", "meta_fields_to_embed": ["title"], "embedding_separator": " – "}
    described = EdgeleafDocumentEmbedder(**settings).to_dict()
    assert described["init_parameters"] == settings
    assert EdgeleafDocumentEmbedder.from_dict(described).to_dict() == described
    assert (
        EdgeleafTextEmbedder("b", 2).to_dict()
        == EdgeleafTextEmbedder.from_dict(EdgeleafTextEmbedder("b", 2).to_dict()).to_dict()
    )


def test_pickle(tiny_bundle: Path, own: Own) -> None:
    again = pickle.loads(pickle.dumps(EdgeleafTextEmbedder(tiny_bundle)))
    assert again.run(QUERIES[0])["embedding"] == own.queries[0].tolist()


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    """A pipeline can be drawn, written and changed where the bundle is not."""
    pipeline = indexing(tmp_path / "none", InMemoryDocumentStore())
    assert "no such" in one_line(lambda: pipeline.get_component("documents").warm_up())
    with pytest.raises(BundleError):
        EdgeleafTextEmbedder(tmp_path / "none").warm_up()


def test_without_the_teacher(without_teacher: Path) -> None:
    assert EdgeleafTextEmbedder(without_teacher).run("lost parcel")["embedding"]
    with pytest.raises(ModelError, match="the teacher nobody/no-such-teacher"):
        EdgeleafDocumentEmbedder(without_teacher).run(documents()[:1])


@pytest.mark.parametrize("text", [None, 3, ["a"], b"a", Document(content="a")])
def test_a_query_that_is_no_string(tiny_bundle: Path, text: Any) -> None:
    with pytest.raises(InputError, match="one string is needed"):
        EdgeleafTextEmbedder(tiny_bundle).run(text)


@pytest.mark.parametrize("given", ["a", None, [None], ["a"], {"a": 1}, [Document(content=None)]])
def test_documents_that_are_none(tiny_bundle: Path, given: Any) -> None:
    assert one_line(lambda: EdgeleafDocumentEmbedder(tiny_bundle).run(given))


TELEMETRY = """
import sys
{first}
import edgeleaf.integrations.haystack
from haystack.telemetry import _telemetry
print(_telemetry.telemetry is None)
"""


@pytest.mark.parametrize("first", ["", "import haystack"])
@pytest.mark.parametrize("asked", [False, True])
def test_reports_are_off_unless_asked_for(tmp_path: Path, first: str, asked: bool) -> None:
    """Also those of a haystack that the program imported before edgeleaf."""
    left = {"HAYSTACK_TELEMETRY_ENABLED"}
    kept = {name: value for name, value in os.environ.items() if name not in left}
    variables = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    variables |= {"HAYSTACK_TELEMETRY_ENABLED": "true"} if asked else {}
    command = [sys.executable, "-c", TELEMETRY.format(first=first)]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(not asked)), done.stderr
