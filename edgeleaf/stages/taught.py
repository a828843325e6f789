"""Teaches a model on pairs: collects them, finds negatives and labels, trains a stage, averages checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.errors import ModelError, TrainingError
from edgeleaf.files import write_json, write_npy
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.recipe.teach import QUERY, PairSource, SoupSpec, StageSpec, TeachRecipe, TeachSpec
from edgeleaf.stages.runner import VECTOR_CACHE
from edgeleaf.texts.taught import PAIRS_FILE, PairSet, collect_pairs

MODEL = "model"
CURVE = "training.json"
HELD_OUT_FILE, SOUP_FILE = "held_out.json", "soup.json"
KEPT = "checkpoint-weights"
_VECTORS = ("teacher_queries", "teacher_documents")


def write_pairs(folder: Path, sources: Sequence[PairSource], *, base: Path, seed: int, held_out: int) -> None:
    """Write the pairs of a stage, ``pairs.json``, and those that are held out, ``held_out.json``."""
    pairs, aside = collect_pairs(sources, base=base, seed=seed, held_out=held_out)
    pairs.write(folder / PAIRS_FILE)
    aside.write(folder / HELD_OUT_FILE)
    tasks = f" of {len(pairs.task_names)} tasks" if len(pairs.task_names) > 1 else ""
    progress.say(f"pairs: {len(pairs):,}{tasks}, {len(pairs.documents):,} documents, {len(aside):,} pairs held out")


def needs_signals(stage: StageSpec) -> bool:
    """Return whether a stage has a technique that needs negatives, labels or vectors made beforehand."""
    return any((stage.mining, stage.labels, stage.distillation, stage.frozen))


def write_signals(folder: Path, pairs: Path, start: Path, stage: StageSpec, spec: TeachSpec, seed: int) -> None:
    """Write a stage's pairs with mined negatives, its labels, and its teacher's vectors."""
    from edgeleaf.training.contrastive.labels import label_scores, open_reranker
    from edgeleaf.training.contrastive.mining import mined

    found = PairSet.read(pairs / PAIRS_FILE)
    cache = folder.parent / VECTOR_CACHE
    queries: npt.NDArray[Any]
    documents: npt.NDArray[Any]
    if stage.frozen is not None:
        queries, documents = vectors_of_pairs(found, stage.frozen.teacher, cache, every=True)
        write_npy(folder / f"{_VECTORS[0]}.npy", queries)
        write_npy(folder / f"{_VECTORS[1]}.npy", documents)
    elif stage.mining is not None or stage.labels is not None:
        queries, documents = _own_vectors(found, start, stage, spec, seed)
    if stage.mining is not None:
        before = len(found)
        found = mined(found, queries, documents, stage.mining, seed=seed)
        count = sum(map(len, found.negatives))
        progress.say(f"mined: {count:,} negatives; {before - len(found):,} pairs left out by the filter")
    if stage.labels is not None:
        reranker = None if stage.labels.reranker is None else open_reranker(stage.labels.reranker)
        found, labels = label_scores(found, queries, documents, most=stage.negatives, reranker=reranker)
        write_npy(folder / "labels.npy", labels)
    if stage.distillation is not None:
        vectors = vectors_of_pairs(found, stage.distillation.teacher, cache, most=stage.negatives)
        for name, part in zip(_VECTORS, vectors, strict=True):
            write_npy(folder / f"{name}.npy", part)
    found.write(folder / PAIRS_FILE)


def teach_one(
    folder: Path,
    pairs: Path,
    signals: Path | None,
    start: Path,
    stage: StageSpec,
    spec: TeachSpec,
    seed: int,
    *,
    keep: bool,
) -> None:
    """Teach one stage into ``model/``; resumes from the checkpoints of a killed run."""
    from edgeleaf.training.contrastive.loss import Signals
    from edgeleaf.training.contrastive.trainer import teach_stage
    from edgeleaf.training.student import save_student

    checkpoints = folder / "checkpoints"
    if (folder / MODEL).is_dir():
        shutil.rmtree(checkpoints, ignore_errors=True)
        return
    learnt = PairSet.read((signals or pairs) / PAIRS_FILE)
    aside = PairSet.read(pairs / HELD_OUT_FILE)
    arrays = {} if signals is None else {path.stem: np.load(path, mmap_mode="r") for path in signals.glob("*.npy")}
    model = open_model(start, spec)
    width = int(model.get_embedding_dimension())
    if stage.frozen is not None and (other := arrays[_VECTORS[1]].shape[1]) != width:
        raise TrainingError(f"{spec.model} gives {width} numbers, the teacher of its documents {other}; give its own")
    _say_prompts(model, stage, spec)
    try:
        curve = teach_stage(
            model,
            learnt,
            aside,
            stage,
            Signals(**arrays),
            seed=seed,
            checkpoints=checkpoints,
            kept=folder / KEPT if keep else None,
            document_prompt=spec.document_prompt,
        )
    except TrainingError:
        shutil.rmtree(checkpoints, ignore_errors=True)  # otherwise the next run would continue from the failed state
        raise
    if (prompt := query_prompt(stage)) is not None:
        model.prompts = {**model.prompts, "query": prompt, "document": spec.document_prompt}
    write_json(folder / CURVE, curve)
    partial = folder / f"{MODEL}.new"
    shutil.rmtree(partial, ignore_errors=True)
    save_student(model, partial)
    partial.replace(folder / MODEL)
    shutil.rmtree(checkpoints, ignore_errors=True)


def make_soup(
    folder: Path, taught: Path, pairs: Path, signals: Path | None, stage: StageSpec, spec: TeachSpec, seed: int
) -> None:
    """Average the last checkpoints of a stage, and other models, into ``model/``."""
    import torch
    from safetensors.torch import load_file

    from edgeleaf.models.resolve import resolve
    from edgeleaf.training.contrastive.instructions import QueryTexts
    from edgeleaf.training.contrastive.judge import HeldOutJudge
    from edgeleaf.training.contrastive.soup import Weights, averaged, greedy, weights_of
    from edgeleaf.training.student import save_student

    soup = spec.soup or SoupSpec()
    files = sorted((taught / KEPT).glob("*.safetensors"))[-soup.checkpoints :]
    names = [f"step {int(path.stem)}" for path in files]
    weights: list[Weights] = [load_file(path) for path in files]
    for name in soup.models or ():
        weights.append(weights_of(open_model(resolve(name), spec)))
        names.append(name)
    model = open_model(taught / MODEL, spec)

    def loaded(state: Weights) -> Any:
        try:
            model.load_state_dict({name: weight.to(model.device) for name, weight in state.items()})
        except RuntimeError:
            raise ModelError(f"the soup of {', '.join(names)}: other weights than the taught model's") from None
        return model

    if soup.kind == "uniform":
        mixed, members = averaged(weights), list(range(len(weights)))
    else:
        aside = PairSet.read(pairs / HELD_OUT_FILE)
        texts = QueryTexts(aside, template=stage.template, most=0, seed=seed)
        frozen = np.load(signals / f"{_VECTORS[1]}.npy") if signals is not None and stage.frozen is not None else None
        judge = HeldOutJudge(aside, texts, seed=seed, frozen=frozen, document_prompt=spec.document_prompt)
        with torch.inference_mode():
            mixed, members = greedy(weights, lambda state: judge.measure(loaded(state))["held_out_mrr_at_10"])
    save_student(loaded(mixed), folder / MODEL)
    write_json(folder / SOUP_FILE, {"kind": soup.kind, "of": names, "members": [names[i] for i in members]})
    progress.say(f"soup, {soup.kind}: {', '.join(names[i] for i in members)}")


def open_model(folder: Path, spec: TeachSpec) -> Any:
    """Load a model that can be taught, with the recipe's window.

    Raises:
        ModelError: it does not begin with a transformer, or has fewer positions than the window.
    """
    from edgeleaf.models.loading import load_sentence_transformer, with_window

    model = load_sentence_transformer(folder)
    if (kind := type(model[0]).__name__) != "Transformer":
        raise ModelError(f"{folder.name} begins with {kind}; a model that begins with a transformer can be taught")
    return with_window(model, spec.max_length, folder)


def query_prompt(stage: StageSpec) -> str | None:
    """Return the text before a query that a stage taught; None if it taught none, or several."""
    from edgeleaf.recipe.teach import TEMPLATE
    from edgeleaf.training.contrastive.instructions import rendered

    prompts = set()
    for source in stage.pairs:
        template = stage.template or (TEMPLATE if source.instruction is not None else None)
        prompts.add(None if template is None else rendered(template.removesuffix(QUERY), "", source.instruction))
    return prompts.pop() if len(prompts) == 1 else None


def report(recipe: TeachRecipe, taught: Sequence[Path], soup: Path | None) -> dict[str, Any]:
    """Return what ``teach.json`` holds: each stage's curve and numbers, and the soup's members."""
    from edgeleaf.records import read_json

    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "start": recipe.teach.model,
        "stages": [read_json(folder / CURVE) for folder in taught],
        "soup": None if soup is None else read_json(soup / SOUP_FILE),
    }


def _say_prompts(model: Any, stage: StageSpec, spec: TeachSpec) -> None:
    own = model.prompts.get("query") or ""
    if own and stage.template is None and all(source.instruction is None for source in stage.pairs):
        progress.warn(f"the model's own query prompt {own!r} is not used: template = {own + QUERY!r} would use it")
    own = model.prompts.get("document") or model.prompts.get("passage") or ""
    if own and not spec.document_prompt:
        progress.warn(f"the model's own document prompt {own!r} is not used: document_prompt = {own!r} would use it")


def _own_vectors(
    pairs: PairSet, start: Path, stage: StageSpec, spec: TeachSpec, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    from edgeleaf.models.loading import autocast
    from edgeleaf.training.contrastive.instructions import QueryTexts

    model = open_model(start, spec)
    texts = QueryTexts(pairs, template=stage.template, most=0, seed=seed)
    rows = {query: row for row, (query, _) in enumerate(pairs.rows)}
    asked = np.zeros((len(pairs.queries), int(model.get_embedding_dimension())), np.float32)
    documents = [spec.document_prompt + text for text in pairs.documents]
    with autocast(model.device.type):
        found = model.encode([texts.plain(row) for row in rows.values()], prompt="", show_progress_bar=False)
        asked[list(rows)] = np.asarray(found, np.float32)
        offered = model.encode(documents, prompt="", show_progress_bar=False)
    return asked, np.asarray(offered, np.float32)


def vectors_of_pairs(
    pairs: PairSet, spec: TeacherSpec, cache: Path, *, every: bool = False, most: int = 0
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Return a teacher's vectors of queries and documents, rows of zeros for texts that no batch has."""
    from edgeleaf.teachers.cache import teacher_vectors
    from edgeleaf.teachers.opening import load_teacher
    from edgeleaf.texts.text import Text

    queries = sorted({query for query, _ in pairs.rows})
    documents = {document for _, document in pairs.rows}
    for query in queries:
        documents.update(pairs.negatives[query][:most])
    used = list(range(len(pairs.documents))) if every else sorted(documents)
    texts = [Text(pairs.queries[row], "query") for row in queries]
    texts += [Text(pairs.documents[row], "document") for row in used]
    vectors = teacher_vectors(texts, load_teacher(spec), cache)
    asked = np.zeros((len(pairs.queries), vectors.shape[1]), np.float16)
    offered = np.zeros((len(pairs.documents), vectors.shape[1]), np.float16)
    asked[queries], offered[used] = vectors[: len(queries)], vectors[len(queries) :]
    return asked, offered
