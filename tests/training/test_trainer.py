"""LEAF: the loss is the paper's, training brings the student closer, a killed run continues with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeleaf.errors import TrainingError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.recipe.specs import ObjectiveSpec
from edgeleaf.training import trainer as module
from edgeleaf.training.batches import LengthBatchSampler
from edgeleaf.training.gpu import STATE, Batches, Step, is_known, train_on_gpu
from edgeleaf.training.objective import LeafLoss
from edgeleaf.training.schedule import rate_factor
from edgeleaf.training.student import build_student, start_projection
from edgeleaf.training.trainer import Examples, HeldOutEvaluator, train, write_student
from tests.conftest import tiny_texts, typed_copy

SPEC = ObjectiveSpec(epochs=2.0, batch_size=16, learning_rate=2e-3, checkpoint_steps=7)


class Fixed(torch.nn.Module):
    def __init__(self, vectors: list[list[float]]) -> None:
        super().__init__()
        self.vectors = torch.tensor(vectors)

    def forward(self, features: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": self.vectors}


def test_loss_is_the_mean_squared_distance_of_unit_vectors() -> None:
    teacher = np.array([[9, 9], [0, 1], [1, 0]], dtype=np.float16)
    loss = LeafLoss(Fixed([[1.0, 0.0], [1.0, 0.0]]), teacher)
    assert loss([{}], torch.tensor([1, 2])).item() == pytest.approx((2.0 + 0.0) / 2)


def test_nan_stops_with_a_message() -> None:
    loss = LeafLoss(Fixed([[float("nan"), 0.0]]), np.zeros((1, 2), dtype=np.float16))
    with pytest.raises(TrainingError, match=r"no longer a number; lower objective\.learning_rate"):
        loss([{}], torch.tensor([0]))


def test_batches_hold_every_text_once_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=1003).tolist()
    sampler = LengthBatchSampler([0] * 1003, lengths, batch_size=10, drop_last=False, seed=3)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(1003))
    assert len(batches) == len(sampler) == 101
    spread = np.mean([np.ptp([lengths[row] for row in batch]) for batch in batches])
    assert spread < 15
    assert batches == list(sampler)
    sampler.set_epoch(1)
    assert batches != list(sampler)


@pytest.fixture(scope="module")
def examples(tiny_teacher: Path) -> tuple[Examples, Examples]:
    teacher = load_sentence_transformer(tiny_teacher)

    def encoded(texts: list[str]) -> Examples:
        return Examples(texts, teacher.encode(texts, normalize_embeddings=True).astype(np.float16))

    texts = tiny_texts(360, low=3, high=10, seed=11)
    return encoded(texts[:320]), encoded(texts[320:])


def started(tiny_student: Path, train_set: Examples) -> Any:
    torch.manual_seed(0)
    model = build_student(tiny_student, dim=48, max_length=32)
    start_projection(model, train_set.texts, train_set.vectors, ridge=1.0)
    return model


def test_training_brings_the_student_closer(
    tiny_student: Path, examples: tuple[Examples, Examples], tmp_path: Path
) -> None:
    train_set, held_out = examples
    torch.manual_seed(0)
    model = build_student(tiny_student, dim=48, max_length=32)  # its projection is random: far from the teacher
    curve = train(model, train_set, held_out, objective=SPEC, seed=0, checkpoints=tmp_path / "checkpoints")
    cosines = [entry["held_out_cosine"] for entry in curve if "held_out_cosine" in entry]
    assert [entry["step"] for entry in curve if "held_out_cosine" in entry] == [0, 7, 14, 21, 28, 35, 40]
    assert abs(cosines[0]) < 0.4
    assert cosines[-1] > 0.7
    write_student(model, curve, tmp_path / "student")
    assert (tmp_path / "student" / "training.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_a_killed_training_goes_on_bit_for_bit(
    tiny_student: Path, examples: tuple[Examples, Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_set, held_out = examples
    whole = started(tiny_student, train_set)
    whole_curve = train(whole, train_set, held_out, objective=SPEC, seed=0, checkpoints=tmp_path / "whole")

    def stop(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 25:
            (Path(args.output_dir) / "checkpoint-25").mkdir()  # as a kill in the middle of a save leaves it
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module._Steps, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            killed = started(tiny_student, train_set)
            train(killed, train_set, held_out, objective=SPEC, seed=0, checkpoints=tmp_path / "killed")
    resumed = started(tiny_student, train_set)
    curve = train(resumed, train_set, held_out, objective=SPEC, seed=0, checkpoints=tmp_path / "killed")
    assert curve == whole_curve
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_linear_rise_and_then_a_linear_decay() -> None:
    from transformers import get_linear_schedule_with_warmup

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, 5, 40)
    for step in range(40):
        assert rate_factor(step, 40, 5) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert rate_factor(40, 40, 0) == 0  # asked for after the last step


def test_batches_for_a_gpu_hold_texts_of_one_length_and_each_text_once() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(3, 9, size=203)
    ids = random.integers(0, 99, size=lengths.sum()).astype(np.int32)
    batches = Batches(ids, lengths, batch_size=8, seed=3, device="cpu")
    whole = list(batches.from_step(0, 2 * len(batches)))
    for part in (whole[: len(batches)], whole[len(batches) :]):
        counted = torch.zeros(203)
        for length, rows, weights in part:
            assert set(lengths[rows.numpy()]) == {length}
            counted.index_add_(0, rows, weights)
        assert torch.equal(counted, torch.ones(203))
    assert any(not torch.equal(a[1], b[1]) for a, b in zip(whole, whole[len(batches) :], strict=False))
    later = list(batches.from_step(len(batches) + 5, 2 * len(batches)))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(later, whole[len(batches) + 5 :], strict=True))
    start = int(batches.starts[7])
    assert batches.ids[start : start + lengths[7]].tolist() == ids[start : start + lengths[7]].tolist()


def test_a_student_with_token_types_is_not_trained_without_them(tiny_student: Path, tmp_path: Path) -> None:
    assert is_known(load_sentence_transformer(tiny_student))
    typed = typed_copy(tiny_student, tmp_path / "typed", (0, 1, 1))
    assert not is_known(load_sentence_transformer(typed))


def on_gpu(model: Any, train_set: Examples, judge: Any, checkpoints: Path, **changed: Any) -> list[dict[str, float]]:
    """The GPU's code path on a CPU: the same steps, without CUDA graphs."""
    options = {"objective": SPEC, "seed": 0, "checkpoints": checkpoints, "max_norm": 1.0, **changed}
    return train_on_gpu(model, train_set.texts, train_set.vectors, judge, **options)


def test_training_on_a_gpu_brings_the_student_closer_and_goes_on_where_it_was_killed(
    tiny_student: Path, examples: tuple[Examples, Examples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_set, held_out = examples
    evaluator = HeldOutEvaluator(held_out)
    torch.manual_seed(0)
    whole = build_student(tiny_student, dim=48, max_length=32)  # its projection is random
    before = evaluator.measure(whole)["held_out_cosine"]
    curve = on_gpu(whole, train_set, evaluator.measure, tmp_path / "whole")
    cosines = [entry["held_out_cosine"] for entry in curve if "held_out_cosine" in entry]
    assert cosines[0] == before
    assert abs(before) < 0.4
    assert cosines[-1] > 0.7

    judged = 0

    def stop(model: Any) -> dict[str, float]:
        nonlocal judged
        judged += 1
        if judged == 4:
            raise KeyboardInterrupt
        return evaluator.measure(model)

    with pytest.raises(KeyboardInterrupt):
        torch.manual_seed(0)
        on_gpu(build_student(tiny_student, dim=48, max_length=32), train_set, stop, tmp_path / "killed")
    assert module.has_checkpoint(tmp_path / "killed")
    assert not module.has_checkpoint(tmp_path / "elsewhere")
    state = torch.load(tmp_path / "killed" / STATE, weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group["capturable"] = True  # as a graphics card would have left it
    torch.save(state, tmp_path / "killed" / STATE)
    settings: list[Any] = []

    class Seen(Step):
        def record(self, lengths: Any) -> None:
            settings.extend((group["capturable"], group["fused"]) for group in self.optimizer.param_groups)
            super().record(lengths)

    monkeypatch.setattr("edgeleaf.training.gpu.Step", Seen)
    resumed = started(tiny_student, train_set)  # what it starts from does not matter: the checkpoint does
    assert on_gpu(resumed, train_set, evaluator.measure, tmp_path / "killed") == curve
    assert set(settings) == {(False, True)}  # this machine's own
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_gpu_says_that_the_loss_grows(
    tiny_student: Path, examples: tuple[Examples, Examples], tmp_path: Path
) -> None:
    train_set, held_out = examples
    broken = Examples(train_set.texts, np.full_like(train_set.vectors, np.nan))
    with pytest.raises(TrainingError, match="no longer a number"):
        on_gpu(started(tiny_student, train_set), broken, HeldOutEvaluator(held_out).measure, tmp_path)


def test_a_gpu_without_room_for_a_batch_says_what_to_lower(
    tiny_student: Path, examples: tuple[Examples, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_set, _ = examples
    model = started(tiny_student, train_set)
    batches = Batches.of(model, train_set.texts, 16, seed=0)
    step = Step(model, batches, train_set.vectors, objective=SPEC, max_norm=1.0)
    step.record(batches.lengths)  # nothing to record on a processor

    def full(self: Any, length: int) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Step, "_warm_up", full)
    monkeypatch.setattr(step, "_on_card", True)
    longest = max(batches.lengths)
    with pytest.raises(TrainingError, match=f"16 texts of {longest} tokens does not fit .* objective.batch_size"):
        step.record(batches.lengths)
