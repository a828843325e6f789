"""Makes the student of a run: distils it, or copies a model that is exported unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.distributed.team import team
from edgeleaf.errors import TrainingError
from edgeleaf.files import write_json
from edgeleaf.models.resolve import resolve
from edgeleaf.models.vocabulary import trim
from edgeleaf.recipe.specs import Recipe, TeacherSpec
from edgeleaf.records import read_json
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.texts.text import Text

START_TEXTS = 4096
"""Number of training texts for the closed-form fit of the projection's start."""
ALONG_AXES = "along-axes.npy"
"""While a student is trained: the targets of :mod:`edgeleaf.training.axes`."""
VOCABULARY = "vocabulary.json"
VOCABULARY_TEXTS = 1_000_000
"""Training texts, in random order, that a student's vocabulary is trimmed to."""
EVALUATED = 256
"""Number of held-out queries that are evaluated during training."""


def train_student(folder: Path, texts: Path, vectors: Path, recipe: Recipe, space: VectorSpace) -> None:
    """Distil a student into ``student/``; resumes from the checkpoints of a killed run.

    All processes of a run call it; the main process writes.
    """
    from edgeleaf.training.axes import along_axes
    from edgeleaf.training.student import build_student, start_projection
    from edgeleaf.training.trainer import Examples, has_checkpoint, train, write_student

    checkpoints, processes = folder / "checkpoints", team()
    if processes.agree_on(lambda: (folder / layout.STUDENT).is_dir()):
        if processes.main:
            shutil.rmtree(checkpoints, ignore_errors=True)
        return
    spec = recipe.student
    model = build_student(
        resolve(spec.model, revision=spec.revision),
        dim=space.dim,
        max_length=spec.max_length,
        pooling=spec.pooling,
        layers=spec.layers,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
    )
    prompts = {"query": space.query_prompt, "document": space.document_prompt}
    corpus = read_corpus(texts, "train")
    if spec.trim_vocabulary:
        apart = Prompted(read_corpus(texts, "held_out"), prompts)
        trimmed = trim(model, islice(Prompted(corpus, prompts), VOCABULARY_TEXTS), apart, name=spec.model)
        if processes.main:
            write_json(folder / VOCABULARY, trimmed)
    targets = np.load(vectors / "train.npy", mmap_mode="r")
    if recipe.objective.axes is not None:
        of_teacher, axes, projected = targets, recipe.objective.axes, folder / ALONG_AXES

        def project() -> str:
            folder.mkdir(parents=True, exist_ok=True)
            is_document = np.array([text.kind == "document" for text in corpus])
            along_axes(of_teacher, is_document, axes=axes, file=projected)
            return str(projected)

        targets = np.load(processes.agree_on(project), mmap_mode="r")
    train_set = Examples(Prompted(corpus, prompts), targets)
    if not processes.agree_on(lambda: has_checkpoint(checkpoints)):
        start_projection(model, train_set.texts[:START_TEXTS], train_set.vectors[:START_TEXTS], ridge=spec.ridge)
    held_out = read_corpus(texts, "held_out")
    rows = list(islice((row for row, text in enumerate(held_out) if text.kind == "query"), EVALUATED))
    queries = [prompts["query"] + held_out[row].text for row in rows]
    watched = Examples(queries, np.load(vectors / "held_out.npy", mmap_mode="r")[rows])
    try:
        curve = train(model, train_set, watched, objective=recipe.objective, seed=recipe.seed, checkpoints=checkpoints)
    except TrainingError:
        if processes.main:
            shutil.rmtree(checkpoints, ignore_errors=True)  # else the next run would continue from the failed state
        raise
    if processes.main:
        write_student(model, curve, folder / layout.STUDENT)
        shutil.rmtree(checkpoints, ignore_errors=True)
        (folder / ALONG_AXES).unlink(missing_ok=True)


class Prompted(Sequence[str]):
    """Texts with the prompts of their kinds before them, read when they are needed."""

    def __init__(self, texts: Sequence[Text], prompts: Mapping[str, str]) -> None:
        self._texts, self._prompts = texts, prompts

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[str]:
        return (self._prompts[text.kind] + text.text for text in self._texts)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self._prompts[text.kind] + text.text for text in self._texts[row]]
        text = self._texts[row]
        return self._prompts[text.kind] + text.text


def vocabulary_facts(student: Path) -> dict[str, Any]:
    """Return the manifest's entries about the tokens that a student lost; none if it has all."""
    path = student / VOCABULARY
    return read_json(path) if path.is_file() else {}


def normalized_copy(
    folder: Path,
    source: Path,
    spec: TeacherSpec,
    *,
    texts: Path | None = None,
    vocabulary: Callable[[], Iterable[str]] | None = None,
) -> None:
    """Write the model into ``student/`` with a final Normalize, its window and its prompts.

    Args:
        folder: the stage's folder.
        source: the model's folder.
        spec: its window and prompts.
        texts: folder with the held-out texts.
        vocabulary: the texts whose tokens the model keeps; None keeps all.

    Raises:
        ModelError: it has modules that cannot be exported, or pools without its prompt.
    """
    from sentence_transformers.models import Normalize

    from edgeleaf.models.loading import load_sentence_transformer
    from edgeleaf.training.student import save_student

    model = load_sentence_transformer(source, max_length=spec.max_length)
    if type(model[-1]).__name__ != "Normalize":
        model.append(Normalize())
    model.prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
    model.default_prompt_name = None
    if vocabulary is not None and texts is not None:
        prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
        kept = (prompt + text for text in vocabulary() for prompt in {*prompts.values()})
        held_out = Prompted(read_corpus(texts, "held_out"), prompts)
        write_json(folder / VOCABULARY, trim(model, kept, held_out, name=spec.model))
    save_student(model, folder / layout.STUDENT)
