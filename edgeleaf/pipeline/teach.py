"""Teaches a model on pairs, as a stage before distillation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeleaf.errors import BundleError, InputError
from edgeleaf.extras import require
from edgeleaf.files import link_tree, whole_folder, write_json
from edgeleaf.models.resolve import resolve
from edgeleaf.models.weights import weights_sha256
from edgeleaf.pipeline.places import work_folder
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.recipe.teach import StageSpec, TeachRecipe, read_teach_recipe
from edgeleaf.stages.runner import STAGE, Stages
from edgeleaf.stages.taught import MODEL, make_soup, needs_signals, report, teach_one, write_pairs, write_signals
from edgeleaf.teachers.opening import KINDS, check_kind
from edgeleaf.texts.taught import pair_fingerprint

REPORT = "teach.json"


@dataclass(frozen=True)
class Taught:
    """A model that was taught.

    Attributes:
        folder: a sentence-transformers model, which a recipe's ``teacher.model`` or ``student.model`` can name.
        report: what ``teach.json`` in it holds.
    """

    folder: Path
    report: dict[str, Any]


def teach(recipe: str | Path, *, output: str | Path, force: bool = False) -> Taught:
    """Teach the model of a recipe's ``[teach]`` on its pairs, stage by stage.

    Stages work in ``OUTPUT.work``. Finished work is not repeated, so a run that was killed continues where it stopped,
    with the same weights as one that was not.

    Args:
        recipe: path of a TOML recipe with a table ``[teach]``.
        output: folder of the model; one that edgeleaf taught is replaced.
        force: run every stage again.

    Raises:
        EdgeleafError: bad input; there is one class per kind.
    """
    spec, base = read_teach_recipe(recipe), Path(recipe).resolve().parent
    target = _output_folder(output)
    for stage in spec.teach.stages:
        for teacher in _teachers(stage):
            check_kind(teacher)
    files = [pair_fingerprint(stage.pairs, base) for stage in spec.teach.stages]
    require("teach", *(["teach with labels"] if any(stage.labels for stage in spec.teach.stages) else []))
    with Stages(work_folder(target), force=force) as stages:
        start = resolve(spec.teach.model, revision=spec.teach.revision)
        others = [resolve(name) for name in (spec.teach.soup.models or () if spec.teach.soup is not None else ())]
        if target.resolve() in (start, *others):
            raise InputError(
                f"{output} is a model that the recipe begins with, and it stays as it is; give another folder"
            )
        taught: list[Path] = []
        for number in range(len(spec.teach.stages)):
            pairs, signals, folder = _stage(spec, number, files[number], base, start, taught, stages)
            taught.append(folder)
        soup = None if spec.teach.soup is None else _soup(spec, pairs, signals, taught[-1], stages)
        summary = report(spec, taught, soup)
        with whole_folder(target) as new:
            link_tree((soup or taught[-1]) / MODEL, new, leave=[STAGE])
            write_json(new / REPORT, summary)
    return Taught(target, summary)


def _stage(
    spec: TeachRecipe, number: int, files: list[str], base: Path, start: Path, before: list[Path], stages: Stages
) -> tuple[Path, Path | None, Path]:
    stage, last = spec.teach.stages[number], number + 1 == len(spec.teach.stages)
    held_out = spec.teach.held_out if last else 0
    name = f"{number + 1}"
    begin = before[-1] / MODEL if before else start
    origin: dict[str, Any] = {"before": before[-1]} if before else {"start": weights_sha256(start)}
    pairs = stages.run(
        f"pairs-{name}",
        {"sources": stage.pairs, "files": files, "seed": spec.seed, "held_out": held_out},
        lambda folder: write_pairs(folder, stage.pairs, base=base, seed=spec.seed, held_out=held_out),
    )
    common = {"stage": stage, "max_length": spec.teach.max_length, "document_prompt": spec.teach.document_prompt}
    named = {"models": [weights_sha256(folder) for folder in _models(stage)]}
    signals = None
    if needs_signals(stage):
        signals = stages.run(
            f"signals-{name}",
            {"pairs": pairs, "seed": spec.seed, **origin, **common, **named},
            lambda folder: write_signals(folder, pairs, begin, stage, spec.teach, spec.seed),
        )
    keep = last and spec.teach.soup is not None
    taught = stages.run(
        f"taught-{name}",
        {"pairs": signals or pairs, "held_out": pairs, "seed": spec.seed, "keep": keep, **origin, **common},
        lambda folder: teach_one(folder, pairs, signals, begin, stage, spec.teach, spec.seed, keep=keep),
    )
    return pairs, signals, taught


def _soup(spec: TeachRecipe, pairs: Path, signals: Path | None, taught: Path, stages: Stages) -> Path:
    assert spec.teach.soup is not None
    stage = spec.teach.stages[-1]
    others = [weights_sha256(resolve(name)) for name in spec.teach.soup.models or ()]
    return stages.run(
        "soup",
        {"taught": taught, "pairs": pairs, "soup": spec.teach.soup, "others": others},
        lambda folder: make_soup(folder, taught, pairs, signals, stage, spec.teach, spec.seed),
    )


def _teachers(stage: StageSpec) -> list[TeacherSpec]:
    return [part.teacher for part in (stage.distillation, stage.frozen) if part is not None]


def _models(stage: StageSpec) -> list[Path]:
    """Return the folders of the models whose weights decide a stage's signals."""
    teachers = [teacher for teacher in _teachers(stage) if KINDS[teacher.kind].has_weights]
    folders = [resolve(teacher.model, revision=teacher.revision) for teacher in teachers]
    reranker = stage.labels.reranker if stage.labels is not None else None
    return [*folders, *([resolve(reranker)] if reranker is not None else [])]


def _output_folder(path: str | Path) -> Path:
    output = Path(path)
    if output.exists() and not (output / REPORT).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise BundleError(f"{path} exists and is not a model that edgeleaf taught; give a new folder")
    return output
