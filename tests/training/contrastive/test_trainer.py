"""A stage: the same seed gives the same weights, a killed run goes on bit for bit, every technique teaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeleaf.errors import TrainingError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.recipe.teach import (
    DistillationSpec,
    FocalSpec,
    FrozenSpec,
    LabelsSpec,
    MatryoshkaSpec,
    MixingSpec,
    PairFiles,
    StageSpec,
)
from edgeleaf.texts.taught import PairSet
from edgeleaf.training.contrastive import trainer as module
from edgeleaf.training.contrastive.loss import ContrastiveLoss, Signals
from edgeleaf.training.contrastive.trainer import Collate, teach_stage
from edgeleaf.vectors import unit_rows
from tests.conftest import tiny_texts

TEACHER = TeacherSpec("t")
SPEC = StageSpec(
    pairs=(PairFiles(("p",)),), steps=12, batch_size=6, learning_rate=2e-3, negatives=2, checkpoint_steps=5
)
ALL = replace(
    SPEC,
    focal=FocalSpec(),
    mixing=MixingSpec(),
    matryoshka=MatryoshkaSpec((32, 16), (1.0, 0.3)),
    distillation=DistillationSpec(TEACHER),
    labels=LabelsSpec(),
    homogeneous=True,
    examples=1,
)


def make_pairs(*, seed: int = 7) -> PairSet:
    """Return 40 pairs whose query has words of its positive, and 2 negatives each."""
    chance = np.random.default_rng(seed)
    documents = tiny_texts(80, low=8, high=14, seed=seed)
    queries = [" ".join(chance.choice(documents[i].split(), 4, replace=False)) for i in range(40)]
    return PairSet(
        queries=queries,
        documents=documents,
        rows=[(i, i) for i in range(40)],
        known=[[i] for i in range(40)],
        negatives=[[40 + i, (i + 1) % 40] for i in range(40)],
        tasks=[i % 2 for i in range(40)],
        task_names=["x", "y"],
        instructions=["find", "look"],
        examples=[[], []],
    )


@pytest.fixture(scope="module")
def pairs() -> PairSet:
    return make_pairs()


@pytest.fixture(scope="module")
def signals(tiny_teacher: Path, pairs: PairSet) -> Signals:
    teacher = load_sentence_transformer(tiny_teacher)
    asked, offered = (teacher.encode(texts, show_progress_bar=False) for texts in (pairs.queries, pairs.documents))
    return Signals(unit_rows(asked), unit_rows(offered), np.random.default_rng(0).random((40, 3)).astype(np.float32))


def of_rows(pairs: PairSet, rows: list[int]) -> PairSet:
    chosen = {"rows": [pairs.rows[i] for i in rows], "tasks": [pairs.tasks[i] for i in rows]}
    return PairSet(**{**vars(pairs), **chosen})


def taught(
    start: Path, pairs: PairSet, spec: StageSpec, signals: Signals, folder: Path, *, seed: int = 0, judged: bool = True
) -> tuple[Any, list[dict[str, float]]]:
    model = load_sentence_transformer(start, max_length=32)
    aside = of_rows(pairs, list(range(32, 40))) if judged else None
    learnt = of_rows(pairs, list(range(32))) if judged else pairs
    if signals.labels is not None:
        signals = replace(signals, labels=signals.labels[: len(learnt.rows)])
    return model, teach_stage(model, learnt, aside, spec, signals, seed=seed, checkpoints=folder)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def test_a_model_learns_to_rank_its_pairs(tiny_student: Path, pairs: PairSet, signals: Signals, tmp_path: Path) -> None:
    model = load_sentence_transformer(tiny_student, max_length=32)
    spec = replace(SPEC, steps=60, learning_rate=3e-3, checkpoint_steps=30)
    curve = teach_stage(model, pairs, pairs, spec, signals, seed=0, checkpoints=tmp_path)
    scores = [entry["held_out_mrr_at_10"] for entry in curve if "held_out_mrr_at_10" in entry]
    losses = [entry["loss"] for entry in curve if "loss" in entry]
    assert len(scores) == 3
    assert scores[-1] > 1.5 * scores[0]
    assert losses[1] < losses[0]


@pytest.mark.slow
def test_one_seed_one_result_and_a_killed_run_goes_on_bit_for_bit(
    tiny_student: Path, pairs: PairSet, signals: Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, curve = taught(tiny_student, pairs, ALL, signals, tmp_path / "whole")
    again, _ = taught(tiny_student, pairs, ALL, signals, tmp_path / "again")
    other, _ = taught(tiny_student, pairs, ALL, signals, tmp_path / "other", seed=1)
    assert [entry["step"] for entry in curve if "held_out_mrr_at_10" in entry] == [0, 5, 10, 12]

    def stop(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 8:
            (Path(args.output_dir) / "checkpoint-8").mkdir()  # as a kill in the middle of a save leaves it
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module._Steps, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            taught(tiny_student, pairs, ALL, signals, tmp_path / "killed")
    resumed, resumed_curve = taught(tiny_student, pairs, ALL, signals, tmp_path / "killed")
    assert resumed_curve == curve
    expected = weights(whole)
    for name, weight in expected.items():
        assert torch.equal(weight, again.state_dict()[name]), name
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert any(not torch.equal(weight, other.state_dict()[name]) for name, weight in expected.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"focal": FocalSpec()},
        {"mixing": MixingSpec(("pairs",))},
        {"mixing": MixingSpec(("lists",))},
        {"matryoshka": MatryoshkaSpec((32, 8))},
        {"homogeneous": True},
        {"distillation": DistillationSpec(TEACHER)},
        {"labels": LabelsSpec()},
        {"template": "say {query}"},
        {"examples": 2},
        {"negatives": 0},
        {"frozen": FrozenSpec(TEACHER)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_technique_changes_the_loss_and_is_off_unless_asked(
    tiny_student: Path, pairs: PairSet, signals: Signals, changes: dict[str, Any]
) -> None:
    bare = PairSet(**{**vars(pairs), "instructions": [None, None]})
    learnt = pairs if "examples" in changes else bare
    model = load_sentence_transformer(tiny_student, max_length=32)
    rows = [{"label": i} for i in (1, 3, 5, 7)]

    def loss(spec: StageSpec, found: PairSet) -> float:
        torch.manual_seed(0)
        given = signals
        if spec.frozen is not None:
            width = model.get_embedding_dimension()
            given = Signals(
                unit_rows(signals.teacher_queries[:, :width]), unit_rows(signals.teacher_documents[:, :width])
            )
        queries = module.QueryTexts(found, template=spec.template, most=spec.examples, seed=1)
        inputs = Collate(model, found, queries, spec)(rows)
        features = [
            {name.partition("_")[2]: part for name, part in inputs.items() if name.startswith(kind)}
            for kind in ("query_", "document_")
        ]
        features = [part for part in features if part]
        assert len(features) == (1 if spec.frozen is not None else 2)
        return float(ContrastiveLoss(model, found, spec, given)(features, inputs["label"]).detach())

    base = replace(SPEC, homogeneous=False)
    plain, changed = loss(base, bare), loss(replace(base, **changes), learnt)
    assert plain == loss(base, bare)
    if "homogeneous" in changes:
        assert changed == plain  # it decides which rows make a batch, not their loss
    else:
        assert changed != plain


def test_cached_gradients_are_the_models_gradients(tiny_student: Path, pairs: PairSet, signals: Signals) -> None:
    """In float64 and without dropout, with mini-batches of 5, through the whole model and every technique."""
    model = load_sentence_transformer(tiny_student, max_length=32).double().eval()
    found = []
    for mini_batch in (None, 5):
        spec = replace(ALL, mini_batch=mini_batch, examples=0)
        inputs = Collate(model, pairs, module.QueryTexts(pairs, template=None, most=0, seed=0), spec)(
            [{"label": i} for i in range(8)]
        )
        features = [
            {name.partition("_")[2]: part for name, part in inputs.items() if name.startswith(kind)}
            for kind in ("query_", "document_")
        ]
        model.zero_grad()
        torch.manual_seed(0)  # of the mixes
        ContrastiveLoss(model, pairs, spec, signals)(features, inputs["label"]).backward()
        found.append({name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-12)
    assert sum(float(gradient.abs().sum()) for gradient in found[0].values()) > 1


def test_a_loss_that_is_no_number_is_one_line(
    tiny_student: Path, pairs: PairSet, signals: Signals, tmp_path: Path
) -> None:
    model = load_sentence_transformer(tiny_student, max_length=32)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    with pytest.raises(TrainingError, match="no longer a number; lower the stage's learning_rate"):
        teach_stage(model, pairs, None, SPEC, signals, seed=0, checkpoints=tmp_path)
