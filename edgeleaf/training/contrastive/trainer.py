"""Teaches a model one stage, with sentence-transformers' trainer; a killed run continues from its last checkpoint."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging

from edgeleaf import progress
from edgeleaf.recipe.teach import StageSpec
from edgeleaf.texts.taught import PairSet
from edgeleaf.training.contrastive.batch import Batch
from edgeleaf.training.contrastive.batches import TaskBatchSampler
from edgeleaf.training.contrastive.instructions import QueryTexts, check_room
from edgeleaf.training.contrastive.judge import HeldOutJudge
from edgeleaf.training.contrastive.loss import ContrastiveLoss, Signals
from edgeleaf.training.contrastive.soup import weights_of
from edgeleaf.training.trainer import _Checkpoints, _Steps, last_checkpoint

MAX_NORM = 1.0
"""Larger gradients are scaled down to this L2 norm."""


def teach_stage(
    model: Any,
    pairs: PairSet,
    held_out: PairSet | None,
    spec: StageSpec,
    signals: Signals,
    *,
    seed: int,
    checkpoints: Path,
    kept: Path | None = None,
    document_prompt: str = "",
) -> list[dict[str, float]]:
    """Teach ``model`` in place.

    Args:
        model: a sentence-transformers model.
        pairs: the pairs that it learns from.
        held_out: pairs that judge it at each checkpoint; None for none.
        spec: the stage of the recipe.
        signals: what its techniques need.
        seed: seed of the order of batches, of dropout, of mixes and of examples.
        checkpoints: folder for checkpoints; a killed run continues from its last one.
        kept: folder that receives the weights of every checkpoint, ``00000100.safetensors``; None keeps none.
        document_prompt: text before each document.

    Returns:
        The curve: a list of ``{"step", "loss", "learning_rate"}`` (mean loss since the previous entry) and ``{"step",
        "held_out_mrr_at_10"}``, the untaught model's at step 0 included.

    Raises:
        TrainingError: the loss is no longer a number, or something of the recipe does not fit the model.
    """
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    disable_progress_bar()
    transformers_logging.disable_progress_bar()  # one for every file that is written
    torch.manual_seed(seed)
    queries = QueryTexts(pairs, template=spec.template, most=spec.examples, seed=seed)
    judge = None
    if held_out is not None and len(held_out):
        judged = QueryTexts(held_out, template=spec.template, most=0, seed=seed)
        frozen = signals.teacher_documents if spec.frozen is not None else None
        judge = HeldOutJudge(held_out, judged, seed=seed, frozen=frozen, document_prompt=document_prompt)
    sampler_tasks = pairs.tasks if spec.homogeneous else [0] * len(pairs)
    count = len(
        TaskBatchSampler(range(len(pairs)), sampler_tasks, shared=spec.shared, batch_size=spec.batch_size, seed=0)
    )
    steps = spec.steps or max(1, math.ceil(spec.epochs * count))
    device = model.device.type
    resume = last_checkpoint(checkpoints)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        warmup_steps=int(steps * spec.warmup),
        lr_scheduler_type="linear",
        max_grad_norm=MAX_NORM,
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        eval_on_start=judge is not None and resume is None,
        eval_strategy="no" if judge is None else "steps",
        eval_steps=spec.checkpoint_steps,
        logging_steps=spec.checkpoint_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=spec.checkpoint_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
    )
    collate = Collate(model, pairs, queries, spec, document_prompt=document_prompt)
    with progress.bar("teach", steps) as advance, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mtime may not be reliable")
        running = TeachTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"label": list(range(len(pairs)))}),
            data_collator=collate,
            loss=ContrastiveLoss(model, pairs, spec, signals),
            evaluator=judge,
            callbacks=[
                _Steps(advance),
                _Checkpoints() if judge is not None else _Unjudged(),
                *([] if kept is None else [_Kept(kept)]),
            ],
        )
        running.tasks, running.shared = sampler_tasks, spec.shared
        for noisy in (PrinterCallback, ProgressCallback):
            running.remove_callback(noisy)
        running.train(resume_from_checkpoint=str(resume) if resume else None)
    model.eval()
    if kept is not None:
        keep_weights(model, kept, steps)
    return _curve(running.state.log_history)


def keep_weights(model: Any, folder: Path, step: int) -> None:
    """Write a model's weights as ``STEP.safetensors``, complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step:08d}.safetensors"
    save_file(weights_of(model), path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


class Collate:
    """Turns rows of the trainer's dataset into tokens of their queries and of the batch's distinct documents."""

    def __init__(
        self, model: Any, pairs: PairSet, queries: QueryTexts, spec: StageSpec, *, document_prompt: str = ""
    ) -> None:
        self.valid_label_columns = ["label"]
        self.prompts: dict[str, str] = {}
        self._model, self._pairs, self._queries, self._spec = model, pairs, queries, spec
        self._document_prompt = document_prompt
        self._window = int(model.max_seq_length)
        if spec.examples:
            self._positions = int(getattr(model[0].auto_model.config, "max_position_embeddings", self._window))
            check_room(self._window, self._positions)
            import tokenizers

            self._plain = tokenizers.Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
            self._plain.no_truncation()
            self._plain.no_padding()

    def __call__(self, features: Sequence[dict[str, int]]) -> dict[str, Any]:
        """Return tokens with the prefixes ``query_`` and ``document_``, and the rows under ``label``."""
        rows = [feature["label"] for feature in features]
        batch = Batch.of(self._pairs, rows, negatives=self._spec.negatives)
        tokens = {f"query_{name}": part for name, part in self._query_tokens(rows).items()}
        if self._spec.frozen is None:
            texts = [self._document_prompt + self._pairs.documents[row] for row in batch.documents]
            tokens |= {f"document_{name}": part for name, part in self._model.preprocess(texts).items()}
        return {**tokens, "label": torch.tensor(rows)}

    def _query_tokens(self, rows: Sequence[int]) -> dict[str, Any]:
        if not self._spec.examples:
            found: dict[str, Any] = self._model.preprocess([self._queries.plain(row) for row in rows])
            return found
        texts = [self._queries.text(row, self._plain, window=self._window, positions=self._positions) for row in rows]
        self._model.max_seq_length = self._positions  # the window counts the text alone, and that is cut already
        try:
            found = self._model.preprocess(texts)
        finally:
            self._model.max_seq_length = self._window
        return found


class TeachTrainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """sentence-transformers' trainer, with batches by task and without writing model cards."""

    tasks: Sequence[int]
    shared: float

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> TaskBatchSampler:
        """Return batches of pairs; see :class:`TaskBatchSampler`."""
        return TaskBatchSampler(dataset, self.tasks, shared=self.shared, batch_size=batch_size, seed=self.args.seed)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: the trainer's card would run the model for examples."""


class _Unjudged(_Checkpoints):
    """Marks checkpoints where there is nothing to judge by."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps:
            control.should_log = True


class _Kept(TrainerCallback):  # type: ignore[misc]
    """Keeps the weights of every checkpoint, for a soup."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        keep_weights(model, self._folder, state.global_step)


def _curve(history: list[dict[str, float]]) -> list[dict[str, float]]:
    curve = []
    for entry in history:
        if "loss" in entry:
            curve.append({"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"]})
        elif "eval_held_out_mrr_at_10" in entry:
            curve.append({"step": entry["step"], "held_out_mrr_at_10": entry["eval_held_out_mrr_at_10"]})
    return curve
