"""LEAF: trains a student to give a teacher's vectors, with sentence-transformers' trainer; resumes from checkpoints."""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.evaluation import SentenceEvaluator
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from edgeleaf import progress, quiet
from edgeleaf.distributed.team import team
from edgeleaf.files import write_json
from edgeleaf.models.loading import autocast, has_bfloat16
from edgeleaf.recipe.specs import ObjectiveSpec
from edgeleaf.training.batches import LengthBatchSampler
from edgeleaf.training.gpu import GPU_ENCODERS, STATE, is_known, train_on_gpu
from edgeleaf.training.guards import check_alive
from edgeleaf.training.objective import LeafLoss
from edgeleaf.training.optimizer import student_optimizer
from edgeleaf.training.schedule import rate_factor
from edgeleaf.training.student import STUDENT_BATCH, save_student

CURVE = "training.json"
CURVE_PLOT = "training.svg"
COMPLETE = "complete"
TABLE = "texts.arrow"
"""Name, in the folder of checkpoints, of the trainer's table of texts."""
MAX_NORM = 1.0
"""Larger gradients are scaled down to this L2 norm."""
_CHUNK = 65536
"""Number of texts that are put into the trainer's table at a time."""


@dataclass(frozen=True)
class Examples:
    """Texts with their teacher's vectors.

    Args:
        texts: strings with their prompts.
        vectors: [len(texts), dim], unit L2 norm.
    """

    texts: Sequence[str]
    vectors: npt.NDArray[np.floating[Any]]


def train(
    model: Any,
    train_set: Examples,
    held_out: Examples,
    *,
    objective: ObjectiveSpec,
    seed: int,
    checkpoints: Path,
) -> list[dict[str, float]]:
    """Train ``model`` in place; on one NVIDIA GPU by :mod:`edgeleaf.training.gpu`.

    Several processes (:mod:`edgeleaf.distributed.team`) take ``objective.batch_size`` texts each: n of them train as
    one does with a batch n times as large, and continue from its checkpoints, as it does from theirs.

    Args:
        model: a student whose projection has been fitted.
        train_set: the texts that it learns from.
        held_out: the texts that judge it, at each checkpoint and at the end; it never learns from them.
        objective: the recipe's hyperparameters.
        seed: seed of the order of batches.
        checkpoints: folder for checkpoints; a killed run continues from its last one.

    Returns:
        The training curve: a list of ``{"step", "loss", "learning_rate"}`` (mean training loss since the previous
        entry) and ``{"step", "held_out_loss", "held_out_cosine"}``, including the untrained student's at step 0.

    Raises:
        TrainingError: the loss is no longer a number, or keeps growing; or the student's vectors are all alike.
    """
    torch.manual_seed(seed)
    judge = HeldOutEvaluator(held_out)
    processes = team()
    if processes.size == 1 and model.device.type == "cuda" and not is_known(model):
        kind = model[0].auto_model.config.model_type
        progress.say(
            f"distil: {kind} has no CUDA graphs here (only {', '.join(sorted(GPU_ENCODERS))} with token types 0 has); "
            "sentence-transformers' trainer trains it on the GPU, with more time per step"
        )
    elif processes.size == 1 and model.device.type == "cuda":
        return train_on_gpu(
            model,
            train_set.texts,
            train_set.vectors,
            judge.measure,
            objective=objective,
            seed=seed,
            checkpoints=checkpoints,
            max_norm=MAX_NORM,
        )
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    disable_progress_bar()
    together = objective.batch_size * processes.size
    steps = max(1, math.ceil(objective.epochs * math.ceil(len(train_set.texts) / together)))
    device = model.device.type
    resume = processes.agree_on(lambda: last_checkpoint(checkpoints))
    table = processes.agree_on(lambda: write_table(train_set.texts, checkpoints / TABLE))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=objective.batch_size,
        per_device_eval_batch_size=objective.batch_size,
        learning_rate=objective.learning_rate,
        weight_decay=objective.weight_decay,
        warmup_steps=int(steps * objective.warmup),
        max_grad_norm=0.0,  # the optimizer clips gradients
        bf16=has_bfloat16(device),
        use_cpu=device == "cpu",
        ddp_backend="gloo" if device == "cpu" and processes.size > 1 else None,
        seed=seed,
        data_seed=seed,
        eval_on_start=resume is None,
        eval_strategy="steps",
        eval_steps=objective.checkpoint_steps,
        logging_steps=objective.checkpoint_steps,
        save_strategy="steps",
        save_steps=objective.checkpoint_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
    )
    with progress.bar("distil (LEAF)", steps) as advance, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mtime may not be reliable")
        running = LeafTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_file(str(table)),
            loss=LeafLoss(model, train_set.vectors),
            evaluator=judge,
            callbacks=[_Steps(advance), _Checkpoints()],
        )
        for noisy in (PrinterCallback, ProgressCallback):
            running.remove_callback(noisy)
        running.train(resume_from_checkpoint=str(resume) if resume else None)
    model.eval()
    return _curve(running.state.log_history)


def write_table(texts: Sequence[str], path: Path) -> Path:
    """Write texts and their rows as an Arrow file, which is mapped into memory, and return its path."""
    import pyarrow

    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([("text", pyarrow.string()), ("label", pyarrow.int64())])
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as stream, pyarrow.ipc.new_stream(stream, schema) as writer:
        for start in range(0, len(texts), _CHUNK):
            part = texts[start : start + _CHUNK]
            rows = np.arange(start, start + len(part))
            writer.write_table(pyarrow.table({"text": pyarrow.array(part, pyarrow.string()), "label": rows}, schema))
    return new.replace(path)


def write_student(model: Any, curve: list[dict[str, float]], folder: Path) -> None:
    """Save a student with its training curve, as JSON and as a plot; the folder is complete or absent."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    save_student(model, new)
    write_json(new / CURVE, curve)
    _plot(curve, new / CURVE_PLOT)
    new.replace(folder)


class LeafTrainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer, with batches of similar length and without writing model cards."""

    optimizer: torch.optim.Optimizer | None

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> LengthBatchSampler:
        """Return batches of texts of similar length; see :class:`LengthBatchSampler`.

        ``drop_last`` is not heeded: sentence-transformers sets it where several processes train, so that none waits for
        a batch that it does not get. Here each gets its part of every batch.
        """
        import pyarrow.compute

        lengths = pyarrow.compute.utf8_length(dataset.data.column("text")).to_numpy()
        processes = self.args.world_size
        return LengthBatchSampler(
            dataset,
            lengths,
            batch_size=batch_size * processes,
            drop_last=False,
            seed=self.args.seed,
            processes=processes,
        )

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Return the student's optimizer; see :mod:`edgeleaf.training.optimizer`."""
        if self.optimizer is None:
            self.optimizer = student_optimizer(
                self.model,
                lr=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                decayed=self.get_decay_parameter_names(self.model),  # no biases, no layer normalisations
                max_norm=MAX_NORM,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Return the schedule of :func:`edgeleaf.training.schedule.rate_factor`."""
        warmup = self.args.get_warmup_steps(num_training_steps)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: rate_factor(step, num_training_steps, warmup)
        )
        return self.lr_scheduler

    def _save_rng_state(self, output_dir: str) -> None:
        """Let the main process alone write; nothing in training depends on a generator whose state this is."""
        if self.is_world_process_zero():
            super()._save_rng_state(output_dir)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: the bundle has its own card, and the trainer's would run the model for examples."""


class HeldOutEvaluator(SentenceEvaluator):  # type: ignore[misc]
    """Cosine and loss to the teacher on texts that training never sees."""

    def __init__(self, held_out: Examples) -> None:
        super().__init__()
        self.primary_metric = "held_out_cosine"
        self._held_out = held_out

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Called by the trainer; see :meth:`measure`."""
        return self.measure(model)

    def measure(self, model: Any) -> dict[str, float]:
        """Return ``held_out_loss`` (mean squared L2 distance) and ``held_out_cosine`` (mean)."""
        with autocast(model.device.type), torch.inference_mode():
            vectors = model.encode(list(self._held_out.texts), batch_size=STUDENT_BATCH, show_progress_bar=False)
        teacher = self._held_out.vectors.astype(np.float32)
        teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
        student = np.asarray(vectors, dtype=np.float32)
        student /= np.linalg.norm(student, axis=1, keepdims=True)  # autocast's own norm is off by 0.1%
        check_alive(student, teacher)
        cosine = float(np.mean(np.sum(student * teacher, axis=1)))
        progress.say(f"held-out cosine to the teacher: {cosine:.4f}")
        return {"held_out_loss": round(2 - 2 * cosine, 6), "held_out_cosine": round(cosine, 6)}


class _Steps(TrainerCallback):  # type: ignore[misc]
    def __init__(self, advance: Any) -> None:
        self._advance = advance

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._advance(1)


class _Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Also evaluates the last step, and marks a checkpoint as complete once the trainer has written all of it."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps:
            control.should_log = control.should_evaluate = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def has_checkpoint(checkpoints: Path) -> bool:
    """Return whether a killed run left something to continue from."""
    return (checkpoints / STATE).is_file() or last_checkpoint(checkpoints) is not None


def last_checkpoint(checkpoints: Path) -> Path | None:
    """Return the newest complete checkpoint, if there is one; remove incomplete ones of killed runs."""
    whole = []
    for folder in checkpoints.glob("checkpoint-*"):
        if (folder / COMPLETE).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=lambda folder: int(folder.name.split("-")[1]), default=None)


def _curve(history: list[dict[str, float]]) -> list[dict[str, float]]:
    curve = []
    for entry in history:
        if "loss" in entry:
            curve.append({"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"]})
        elif "eval_held_out_cosine" in entry:
            names = ("held_out_loss", "held_out_cosine")
            curve.append({"step": entry["step"], **{name: entry[f"eval_{name}"] for name in names}})
    return curve


def _plot(curve: list[dict[str, float]], path: Path) -> None:
    quiet.matplotlib_files()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, label in ((left, "loss", "training"), (left, "held_out_loss", "held-out")):
        points = [(entry["step"], entry[name]) for entry in curve if name in entry]
        axes.plot(*zip(*points, strict=True), marker=".", label=label) if points else None
    left.set(xlabel="step", ylabel="squared L2 distance to the teacher")
    left.legend()
    points = [(entry["step"], entry["held_out_cosine"]) for entry in curve if "held_out_cosine" in entry]
    right.plot(*zip(*points, strict=True), marker=".")
    right.set(xlabel="step", ylabel="held-out cosine to the teacher")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with rc_context({"svg.hashsalt": "edgeleaf"}):
        figure.savefig(path, metadata={"Date": None})
