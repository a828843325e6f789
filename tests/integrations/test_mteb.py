"""The mteb wrapper in the real mteb, on a local task: the file encodes queries, teacher or student the documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

from edgeleaf.certify.retrieval import ndcg_at_10
from edgeleaf.errors import InputError
from edgeleaf.integrations.mteb import BundleEncoder
from edgeleaf.texts.collection import Collection
from edgeleaf.vectors import nearest
from tests.conftest import tiny_texts


def metadata(name: str, kind: str, score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="made in the test",
        reference=None,
        dataset={"path": "local/none", "revision": "0"},
        type=kind,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation="",
    )


DOCUMENTS = tiny_texts(60, low=6, high=12, seed=21)
QUERIES = {f"q{i}": " ".join(text.split()[:4]) for i, text in enumerate(DOCUMENTS[:20])}


class LocalRetrieval(AbsTaskRetrieval):
    metadata = metadata("LocalRetrieval", "Retrieval", "ndcg_at_10")

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        self.dataset = {
            "default": {
                "test": {
                    "corpus": Dataset.from_list(
                        [{"id": f"d{i}", "text": t, "title": ""} for i, t in enumerate(DOCUMENTS)]
                    ),
                    "queries": Dataset.from_list([{"id": key, "text": text} for key, text in QUERIES.items()]),
                    "relevant_docs": {f"q{i}": {f"d{i}": 1} for i in range(20)},
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


class LocalSTS(AbsTaskSTS):
    metadata = metadata("LocalSTS", "STS", "cosine_spearman")
    min_score, max_score = 0, 5

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        pairs = [
            {"sentence1": text, "sentence2": " ".join(text.split()[: 2 + i % 5]), "score": float(i % 5)}
            for i, text in enumerate(DOCUMENTS)
        ]
        self.dataset = {"test": Dataset.from_list(pairs)}
        self.data_loaded = True


def score(encoder: BundleEncoder, task: Any) -> float:
    found = mteb.evaluate(encoder, task, cache=None, encode_kwargs={"batch_size": 16})
    return float(found.task_results[0].get_score())


@pytest.mark.parametrize("documents", ["teacher", "student"])
def test_retrieval_is_scored_as_edgeleaf_scores_it(tiny_bundle: Path, documents: Any) -> None:
    encoder = BundleEncoder(tiny_bundle, documents=documents)
    names = tuple(QUERIES)
    settings: dict[str, Any] = {"task_metadata": LocalRetrieval.metadata, "hf_split": "test", "hf_subset": "default"}
    asked = encoder.encode([{"text": list(QUERIES.values())}], prompt_type=PromptType.query, **settings)
    held = encoder.encode([{"text": DOCUMENTS}], prompt_type=PromptType.document, **settings)
    collection = Collection(
        name="local",
        query_ids=names,
        queries=tuple(QUERIES.values()),
        document_ids=tuple(f"d{i}" for i in range(len(DOCUMENTS))),
        documents=tuple(DOCUMENTS),
        qrels={name: {f"d{name[1:]}": 1} for name in names},
    )
    assert score(encoder, LocalRetrieval()) == pytest.approx(ndcg_at_10(collection, nearest(asked, held, 10)), abs=1e-4)
    assert encoder.mteb_model_meta.name == f"edgeleaf/tiny-{'a' if documents == 'teacher' else ''}symmetric"


def test_spearman(tiny_bundle: Path) -> None:
    assert score(BundleEncoder(tiny_bundle), LocalSTS()) > 0.2


def test_documents_are_the_teachers(tiny_bundle: Path) -> None:
    from edgeleaf.bundle.manifest import Manifest
    from edgeleaf.teachers.opening import teacher_of

    encoder = BundleEncoder(tiny_bundle)
    given = [{"text": DOCUMENTS[:3]}, {"text": DOCUMENTS[3:5]}]
    settings: dict[str, Any] = {"task_metadata": LocalRetrieval.metadata, "hf_split": "test", "hf_subset": "default"}
    found = encoder.encode(given, prompt_type=PromptType.document, **settings)
    teacher = teacher_of(Manifest.read(tiny_bundle)).encode(DOCUMENTS[:5], kind="document")
    assert np.allclose(found, teacher, atol=2e-3)
    assert not np.allclose(encoder.encode(given, prompt_type=PromptType.query, **settings), teacher, atol=2e-3)


def test_wrong_documents(tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="allowed: 'teacher', 'student'"):
        BundleEncoder(tiny_bundle, documents="both")  # type: ignore[arg-type]
