"""Measures the techniques of ``edgeleaf teach``, one at a time and together, and as a student's last phase after LEAF.

    python -m bench.studies.teach DATA -o DIR [--part model|student] [--seeds 3] [--arm NAME ...] [--table]

DATA is a folder with ``ir/`` (collections in BEIR's layout, scifact with ``qrels/train.tsv``) and ``texts/``. Every arm
teaches all-MiniLM-L6-v2 for equally many steps on the same pairs: claims of scifact's train split, titles and
sentences from texts. It is judged on scifact's test queries and on five other collections, cut down to some queries and
documents each (relevant ones, BM25's first of each query, and others by chance), in the same way for all arms.
Part "student" continues from the reference student instead, among its teacher's documents, which stay as they are.

A run is one arm and one seed; its result is ``DIR/runs/ARM, seed.json``, so a stopped study continues. ``--table``
prints the table of what is there: differences to the untaught model over the same queries, with 95% intervals of a
bootstrap over queries and seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.studies.short_collections import shortened
from bench.studies.teach_parts import of_documents, of_rows, values_of
from bench.studies.teach_table import UNTAUGHT, Values, results, table
from edgeleaf import progress
from edgeleaf.files import write_json, write_npy, write_text
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.models.resolve import resolve
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.recipe.teach import (
    TEMPLATE,
    DistillationSpec,
    FocalSpec,
    FrozenSpec,
    LabelsSpec,
    MatryoshkaSpec,
    MiningSpec,
    MixingSpec,
    PairCollection,
    PairsMade,
    PairSource,
    StageSpec,
)
from edgeleaf.stages.taught import vectors_of_pairs
from edgeleaf.teachers.cache import teacher_vectors
from edgeleaf.teachers.opening import load_teacher
from edgeleaf.texts.collection import read_collection
from edgeleaf.texts.taught import PairSet, collect_pairs
from edgeleaf.texts.text import Text
from edgeleaf.training.contrastive.instructions import QueryTexts, rendered
from edgeleaf.training.contrastive.judge import HeldOutJudge
from edgeleaf.training.contrastive.labels import label_scores
from edgeleaf.training.contrastive.loss import Signals
from edgeleaf.training.contrastive.mining import mined
from edgeleaf.training.contrastive.soup import averaged, greedy
from edgeleaf.training.contrastive.trainer import teach_stage

START = "sentence-transformers/all-MiniLM-L6-v2"
TEACHER = TeacherSpec("sentence-transformers/all-mpnet-base-v2", max_length=48)
STUDENT = "export/models/mpnet/student"
COLLECTIONS = ("scifact", "cranfield", "npl-vaswani", "cosqa", "msmarco-dl19-mini", "xquad/en")
CLAIM = "Given a scientific claim, retrieve abstracts that support or refute it"
QUESTION = "Given a question, retrieve passages that answer it"
INSTRUCTIONS = {
    "scifact": CLAIM,
    "titles": "Given a term, retrieve its definition",
    "sentences": "Given a sentence, retrieve the paragraph that it comes from",
}
WINDOW, STEPS, BATCH, RATE, NEGATIVES = 48, 40, 16, 5e-5, 2
STUDENT_STEPS, STUDENT_BATCH, STUDENT_RATE = 30, 32, 1e-4
SCIFACT_PAIRS, MADE_PAIRS, HELD_OUT = 400, 200, 80
BASE = "InfoNCE"


@dataclass(frozen=True)
class Arm:
    """What an arm changes in the base: fields of the stage, stages in two halves, a soup, instructions."""

    stage: dict[str, Any]
    weak_first: bool = False
    soup: str | None = None
    instructed: bool = False
    margin: float | None = None


MARGIN = 0.95
FOCAL, MIXING = {"focal": FocalSpec()}, {"mixing": MixingSpec(("pairs", "lists"), 2)}
MATRYOSHKA = {"matryoshka": MatryoshkaSpec((384, 192, 96), (1.0, 0.3, 0.2))}
DISTILLATION = {"distillation": DistillationSpec(TEACHER)}
LABELS = {"labels": LabelsSpec()}
TASKS = {"homogeneous": True}
INSTRUCTED: dict[str, Any] = {"template": TEMPLATE}
ARMS = {
    BASE: Arm({}),
    "focal weights": Arm(FOCAL),
    "mixing, pairs": Arm({"mixing": MixingSpec(("pairs",), 2)}),
    "mixing, lists": Arm({"mixing": MixingSpec(("lists",), 2)}),
    "matryoshka": Arm(MATRYOSHKA),
    "batches of one task": Arm(TASKS),
    "weak pairs, then fine": Arm({}, weak_first=True),
    "soup, uniform": Arm({}, soup="uniform"),
    "soup, greedy": Arm({}, soup="greedy"),
    "distillation": Arm(DISTILLATION),
    "all of KaLM's": Arm({**FOCAL, **MIXING, **MATRYOSHKA, **TASKS, **DISTILLATION}, weak_first=True, soup="uniform"),
    "instructions": Arm(INSTRUCTED, instructed=True),
    "instructions and examples": Arm({**INSTRUCTED, "examples": 1}, instructed=True),
    "soft labels": Arm(LABELS),
    "adaptive margin": Arm({}, margin=MARGIN),
    "all of LG-ANNA's": Arm({**INSTRUCTED, **LABELS}, instructed=True, margin=MARGIN),
}
STUDENT_ARMS = {
    "LEAF alone (beta 0)": (0.0, {}),
    "beta 0.3, gamma 0.5": (0.3, FOCAL),
    "beta 1, gamma 0.5": (1.0, FOCAL),
    "beta 1, gamma 0.5, mixes": (1.0, {**FOCAL, **MIXING}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--part", choices=("model", "student"), default="model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arm", action="append", help="one of the arms, may be repeated; default: all")
    parser.add_argument("--table", action="store_true", help="only print the table of the runs that are there")
    given = parser.parse_args()
    known = ARMS if given.part == "model" else STUDENT_ARMS
    arms = given.arm or list(known)
    if unknown := [name for name in arms if name not in known]:
        raise SystemExit(f"no such arm: {', '.join(unknown)}; there are: {', '.join(known)}")
    progress.show()
    if not given.table:
        study = (Study if given.part == "model" else StudentStudy)(given.data, given.output)
        study.kept(UNTAUGHT, 0, study.untaught)
        for seed in range(given.seeds):
            for name in arms:
                study.kept(name, seed, lambda name=name, seed=seed: study.run(name, seed))  # type: ignore[misc]
    text = table(results(given.output / "runs" / given.part), list(known))
    write_text(given.output / f"{given.part}.md", text)
    sys.stdout.write(text)


class Study:
    """The pairs, the collections, and the vectors of models that do not change."""

    part = "model"

    def __init__(self, data: Path, output: Path) -> None:
        self.data, self.output = data, output
        self.collections = [shortened(read_collection(data / "ir" / name), name) for name in COLLECTIONS]
        texts = data / "texts"
        sources: list[PairSource] = [
            PairCollection(str(data / "ir" / "scifact"), limit=SCIFACT_PAIRS, task="scifact"),
            PairsMade((str(texts / "openstax-textbooks.txt.gz"),), "titles", limit=MADE_PAIRS, task="titles"),
            PairsMade((str(texts / "gap-wikipedia.txt.gz"),), "sentences", limit=MADE_PAIRS, task="sentences"),
        ]
        self.sources = tuple(sources)
        pairs, aside = collect_pairs(sources, base=data, seed=0, held_out=HELD_OUT)
        self.pairs, self.held_out = of_documents(pairs), of_documents(aside)

    def kept(self, name: str, seed: int, make: Any) -> None:
        """Make a run's result unless it is there."""
        path = self.output / "runs" / self.part / f"{name}, {seed}.json"
        if path.is_file():
            return
        began, used = time.monotonic(), time.process_time()
        values = make()
        result = {
            "arm": name,
            "seed": seed,
            "ndcg_at_10": values,
            "seconds": round(time.monotonic() - began),
            "processor_seconds": round(time.process_time() - used),
            "settings": self.settings(),
        }
        write_json(path, result)
        means = " ".join(f"{key} {np.mean(part):.4f}" for key, part in values.items())
        progress.say(f"{name}, seed {seed}: {means}; {result['processor_seconds']} s of processor time")

    def settings(self) -> dict[str, Any]:
        return {"steps": STEPS, "batch": BATCH, "rate": RATE, "negatives": NEGATIVES, "window": WINDOW}

    def untaught(self) -> Values:
        return self.judged(load_sentence_transformer(resolve(START), max_length=WINDOW), instructed=False)

    def judged(self, model: Any, *, instructed: bool) -> Values:
        """Return nDCG@10 of each query, by collection."""
        found = {}
        for part in self.collections:
            queries = list(part.queries)
            if instructed:
                task = CLAIM if part.name == "scifact" else QUESTION
                queries = [rendered(TEMPLATE, query, task) for query in queries]
            asked = model.encode(queries, prompt="", show_progress_bar=False)
            found[part.name] = values_of(part, asked, model.encode(list(part.documents), show_progress_bar=False))
        return found

    def own_vectors(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the untaught model's vectors of all queries and documents of the pairs, from the output folder."""
        key = hashlib.sha256("\n".join([*self.pairs.queries, *self.pairs.documents]).encode()).hexdigest()[:16]
        path = self.output / "vectors" / f"own-{key}.npy"
        if not path.is_file():
            model = load_sentence_transformer(resolve(START), max_length=WINDOW)
            progress.say(f"untaught vectors of {len(self.pairs.queries) + len(self.pairs.documents):,} texts")
            write_npy(path, model.encode([*self.pairs.queries, *self.pairs.documents], show_progress_bar=False))
        vectors = np.load(path)
        return vectors[: len(self.pairs.queries)], vectors[len(self.pairs.queries) :]

    def run(self, name: str, seed: int) -> Values:
        """Teach and judge one arm."""
        arm = ARMS[name]
        mining = MiningSpec(count=NEGATIVES, ranks=(1, 30), margin=arm.margin)
        pairs = mined(self.pairs, *self.own_vectors(), mining, seed=0)
        labels = None
        if "labels" in arm.stage:
            pairs, labels = label_scores(pairs, *self.own_vectors(), most=NEGATIVES)
        if arm.instructed:
            pairs = PairSet(**{**vars(pairs), "instructions": [INSTRUCTIONS[name] for name in pairs.task_names]})
        vectors: tuple[Any, Any] = (None, None)
        if "distillation" in arm.stage:
            vectors = vectors_of_pairs(pairs, TEACHER, self.output / "vectors", most=NEGATIVES)
        signals = Signals(*vectors, labels=labels)
        stage = StageSpec(
            pairs=self.sources,
            steps=STEPS,
            batch_size=BATCH,
            learning_rate=RATE,
            negatives=NEGATIVES,
            checkpoint_steps=STEPS // 4 if arm.soup else 10**9,
        )
        stage = replace(stage, **arm.stage)
        model = load_sentence_transformer(resolve(START), max_length=WINDOW)
        with tempfile.TemporaryDirectory(dir=self.output) as scratch:
            parts = [(pairs, labels, stage)]
            if arm.weak_first:
                weak = [row for row, task in enumerate(pairs.tasks) if pairs.task_names[task] != "scifact"]
                fine = [row for row, task in enumerate(pairs.tasks) if pairs.task_names[task] == "scifact"]
                half = replace(stage, steps=STEPS // 2)
                parts = [
                    (of_rows(pairs, rows), None if labels is None else labels[rows], half) for rows in (weak, fine)
                ]
            for number, (part, graded, spec) in enumerate(parts):
                teach_stage(
                    model,
                    part,
                    None,
                    spec,
                    replace(signals, labels=graded),
                    seed=seed,
                    checkpoints=Path(scratch) / str(number),
                    kept=Path(scratch) / "kept" if arm.soup and number + 1 == len(parts) else None,
                )
            if arm.soup:
                self.mixed(model, Path(scratch) / "kept", arm.soup, stage, seed)
        return self.judged(model.eval(), instructed=arm.instructed)

    def mixed(self, model: Any, folder: Path, kind: str, stage: StageSpec, seed: int) -> None:
        """Give a model the average of its last three checkpoints' weights."""
        from safetensors.torch import load_file

        weights = [load_file(path) for path in sorted(folder.glob("*.safetensors"))[-3:]]
        if kind == "uniform":
            model.load_state_dict(averaged(weights))
            return
        texts = QueryTexts(self.held_out, template=stage.template, most=0, seed=seed)
        judge = HeldOutJudge(self.held_out, texts, seed=0, most=300)

        def score(state: Mapping[str, torch.Tensor]) -> float:
            model.load_state_dict(dict(state))
            return judge.measure(model)["held_out_mrr_at_10"]

        mixed, members = greedy(weights, score)
        progress.say(f"greedy soup of checkpoints {members}")
        model.load_state_dict(mixed)


class StudentStudy(Study):
    """A last phase after LEAF: the reference student's queries among its teacher's documents."""

    part = "student"

    def __init__(self, data: Path, output: Path) -> None:
        super().__init__(data, output)
        teacher, cache = load_teacher(TEACHER), output / "vectors"
        self.documents = [
            teacher_vectors([Text(text, "document") for text in part.documents], teacher, cache).astype(np.float32)
            for part in self.collections
        ]
        self.vectors = vectors_of_pairs(self.pairs, TEACHER, cache, every=True)
        self.pairs = mined(self.pairs, *self.vectors, MiningSpec(count=7, ranks=(50, 100)), seed=0)

    def settings(self) -> dict[str, Any]:
        return {"steps": STUDENT_STEPS, "batch": STUDENT_BATCH, "rate": STUDENT_RATE, "window": WINDOW}

    def student(self) -> Any:
        return load_sentence_transformer(Path(STUDENT), max_length=WINDOW)

    def untaught(self) -> Values:
        return self.judged(self.student(), instructed=False)

    def judged(self, model: Any, *, instructed: bool) -> Values:
        return {
            part.name: values_of(part, model.encode(list(part.queries), prompt="", show_progress_bar=False), documents)
            for part, documents in zip(self.collections, self.documents, strict=True)
        }

    def run(self, name: str, seed: int) -> Values:
        beta, changes = STUDENT_ARMS[name]
        stage = StageSpec(
            pairs=self.sources,
            steps=STUDENT_STEPS,
            batch_size=STUDENT_BATCH,
            learning_rate=STUDENT_RATE,
            negatives=7,
            checkpoint_steps=10**9,
            frozen=FrozenSpec(TEACHER, beta=beta),
            **changes,  # type: ignore[arg-type]
        )
        model = self.student()
        with tempfile.TemporaryDirectory(dir=self.output) as scratch:
            teach_stage(model, self.pairs, None, stage, Signals(*self.vectors), seed=seed, checkpoints=Path(scratch))
        return self.judged(model.eval(), instructed=False)


if __name__ == "__main__":
    main()
