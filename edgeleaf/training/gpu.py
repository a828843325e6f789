"""The same training on an NVIDIA GPU: every step replays one CUDA graph.

A student of six narrow layers and a batch of short queries give a GPU some microseconds of work at a time; Python takes
a hundred times as long to start it. So tokens of all texts and the teacher's vectors are put on the card once. A batch
consists of texts of one length, without padding or a mask. The step of each length (gather, forward, backward, clip,
AdamW) is recorded as a graph that the processor starts with one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeleaf import progress
from edgeleaf.errors import TrainingError
from edgeleaf.models.loading import has_bfloat16
from edgeleaf.recipe.specs import ObjectiveSpec
from edgeleaf.training.guards import LossWatch
from edgeleaf.training.schedule import rate_factor

GPU_ENCODERS = frozenset({"bert"})
"""Models of transformers whose parts this module calls by name; sentence-transformers' trainer trains all others."""
STATE = "state.pt"
_CHUNK = 65536
"""Texts that are tokenized at a time."""
LOOK = 100
"""Steps between two checks of the losses; a check waits for the card."""
ROOM = 0.6
"""Share of the card's free memory that the teacher's vectors may take; if they do not fit, they stay outside."""


def is_known(model: Any) -> bool:
    """Return whether this module trains a student: one whose parts it knows, and whose token types are all 0."""
    if model[0].auto_model.config.model_type not in GPU_ENCODERS:
        return False
    return not np.any(model.tokenizer(["a"]).get("token_type_ids", 0))


def train_on_gpu(
    model: Any,
    texts: Sequence[str],
    vectors: npt.NDArray[np.floating[Any]],
    judge: Callable[[Any], dict[str, float]],
    *,
    objective: ObjectiveSpec,
    seed: int,
    checkpoints: Path,
    max_norm: float,
) -> list[dict[str, float]]:
    """Train ``model`` in place; :func:`edgeleaf.training.trainer.train` calls this if there is a GPU.

    Args:
        model: a sentence-transformers student whose transformer has ``embeddings`` and ``encoder``, as BERT's has.
        texts: texts with their prompts.
        vectors: [len(texts), dim], the teacher's vectors, unit L2 norm.
        judge: called with the model at each checkpoint; its result goes into the curve.
        objective, seed, checkpoints: as for ``train``.
        max_norm: larger gradients are scaled down to this L2 norm.

    Returns:
        The curve, like ``train``.

    Raises:
        TrainingError: the loss is no longer a number, or keeps growing; a batch does not fit into the card's memory.
    """
    batches = Batches.of(model, texts, objective.batch_size, seed)
    steps = max(1, math.ceil(objective.epochs * len(batches)))
    warmup = int(steps * objective.warmup)
    step = Step(model, batches, vectors, objective=objective, max_norm=max_norm)
    done, curve = _resume(checkpoints, model, step)
    watch, losses = LossWatch(), torch.zeros(LOOK, 2, device=model.device)
    seen: list[list[float]] = []  # loss and texts of each step
    if not done:
        curve.append({"step": 0, **judge(model)})
    model.train()
    step.record(batches.lengths)
    with progress.bar("distil (LEAF)", steps) as advance:
        advance(done)
        looked_at = done
        for number, (length, rows, weights) in enumerate(batches.from_step(done, steps), done + 1):
            rate = objective.learning_rate * rate_factor(number - 1, steps, warmup)
            losses[number - looked_at - 1].copy_(step(length, rows, weights, rate))
            at_checkpoint = number % objective.checkpoint_steps == 0 or number == steps
            if number - looked_at == LOOK or at_checkpoint:
                looked = losses[: number - looked_at].tolist()
                for loss, _ in looked:
                    watch.see(loss)
                seen += looked
                advance(number - looked_at)
                looked_at = number
            if at_checkpoint:
                model.eval()
                means, counts = np.transpose(seen)
                loss = round(float(np.average(means, weights=counts)), 6)
                curve.append({"step": number, "loss": loss, "learning_rate": rate})
                curve.append({"step": number, **judge(model)})
                _save(checkpoints, model, step, number, curve)
                model.train()
                seen = []
    model.eval()
    return curve


class Batches:
    """Tokens of all texts on the card, and batches of texts of one length; the same seed gives the same batches.

    The last batch of a length is padded with texts of weight 0.
    """

    def __init__(
        self, ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64], *, batch_size: int, seed: int, device: Any
    ) -> None:
        self.batch_size, self._seed, self._device = batch_size, seed, device
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.ids, self.starts = (torch.from_numpy(part).to(device) for part in (ids, starts))
        order = np.argsort(lengths, kind="stable")
        self._of_length = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
        self._lengths = np.repeat([int(lengths[rows[0]]) for rows in self._of_length], self._counts())

    def _counts(self) -> list[int]:
        return [-(-len(rows) // self.batch_size) for rows in self._of_length]

    @staticmethod
    def of(model: Any, texts: Sequence[str], batch_size: int, seed: int) -> Batches:
        """Tokenise texts as the student does."""
        parts, lengths = [], []
        for start in range(0, len(texts), _CHUNK):
            found = model.tokenizer(
                list(texts[start : start + _CHUNK]),
                truncation=True,
                max_length=model.max_seq_length,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
            lengths.append(np.fromiter(map(len, found), np.int64, len(found)))
            parts.append(np.concatenate([np.asarray(ids, np.int32) for ids in found]))
        joined = np.concatenate(parts), np.concatenate(lengths)
        return Batches(*joined, batch_size=batch_size, seed=seed, device=model.device)

    @property
    def lengths(self) -> list[int]:
        """Return the lengths that occur, in tokens, longest first."""
        return sorted(set(self._lengths.tolist()), reverse=True)

    def __len__(self) -> int:
        """Return the number of batches in a pass over the texts."""
        return sum(self._counts())

    def from_step(self, first: int, last: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yield (tokens per text, rows int64 [batch], weights float32 [batch]) of the steps ``first`` to ``last``."""
        count = len(self)
        for epoch in range(first // count, -(-last // count)):
            lengths, rows, weights = self._epoch(epoch)
            rows, weights = rows.to(self._device), weights.to(self._device)
            for i in range(max(0, first - epoch * count), min(count, last - epoch * count)):
                yield int(lengths[i]), rows[i], weights[i]

    def _epoch(self, epoch: int) -> tuple[npt.NDArray[np.int64], torch.Tensor, torch.Tensor]:
        random, size = np.random.default_rng((self._seed, epoch)), self.batch_size
        rows = np.empty((len(self), size), np.int64)
        weights = np.ones((len(self), size), np.float32)
        start = 0
        for of_length, count in zip(self._of_length, self._counts(), strict=True):
            rows[start : start + count] = np.resize(random.permutation(of_length), (count, size))
            weights[start + count - 1, len(of_length) - (count - 1) * size :] = 0
            start += count
        shuffled = random.permutation(len(self))
        return self._lengths[shuffled], torch.from_numpy(rows[shuffled]), torch.from_numpy(weights[shuffled])


class Step:
    """One training step, with one CUDA graph per length of text.

    Args:
        model: the student.
        batches: the batches, for their tokens.
        vectors: the teacher's vectors, [n, dim].
        objective: the objective, for its weight decay and batch size.
        max_norm: as for :func:`train_on_gpu`.
    """

    def __init__(
        self,
        model: Any,
        batches: Batches,
        vectors: npt.NDArray[np.floating[Any]],
        *,
        objective: ObjectiveSpec,
        max_norm: float,
    ) -> None:
        self._model, self._batches, self._max_norm = model, batches, max_norm
        self._device = model.device
        self._on_card = self._device.type == "cuda"
        self._bfloat16 = has_bfloat16(self._device.type)
        size, dim = objective.batch_size, vectors.shape[1]
        self._rows = torch.zeros(size, dtype=torch.int64, device=self._device)
        self._weights = torch.ones(size, device=self._device)
        self._teacher = torch.zeros(size, dim, device=self._device)
        self._loss = torch.zeros(2, device=self._device)
        self._rate = torch.zeros((), device=self._device)
        self._vectors = _on_card(vectors, self._device)
        self._graphs: dict[int, Any] = {}
        self._pool: Any = None
        self.optimizer = self._make_optimizer(objective.weight_decay)

    def __call__(self, length: int, rows: torch.Tensor, weights: torch.Tensor, rate: float) -> torch.Tensor:
        """Take a step on texts of ``length`` tokens; return [loss, texts], which the next step overwrites."""
        self._rows.copy_(rows)
        self._weights.copy_(weights)
        self._rate.fill_(rate)
        if isinstance(self._vectors, torch.Tensor):
            self._teacher.copy_(self._vectors[self._rows])
        else:
            self._teacher.copy_(torch.from_numpy(self._vectors[rows.cpu().numpy()].astype(np.float32)))
        if self._on_card:
            self._graphs[length].replay()
        else:
            self._eager(length)
        return self._loss

    def record(self, lengths: Sequence[int]) -> None:
        """Record the graphs of all lengths.

        Args:
            lengths: lengths in tokens, longest first, so that the others share its memory.

        Raises:
            TrainingError: a batch does not fit into the card's memory.
        """
        if not self._on_card:
            return
        try:
            self._warm_up(lengths[0])
            self._pool = torch.cuda.graph_pool_handle()
            for length in lengths:
                self._graphs[length] = self._record(length)
        except torch.cuda.OutOfMemoryError:
            raise TrainingError(
                f"a batch of {len(self._rows)} texts of {lengths[0]} tokens does not fit into the GPU's memory; "
                "lower objective.batch_size"
            ) from None

    def _make_optimizer(self, weight_decay: float) -> torch.optim.Optimizer:
        model = self._model
        table = model[0].auto_model.get_input_embeddings().weight
        pooler = getattr(model[0].auto_model, "pooler", None)  # nothing reads it
        unused = set() if pooler is None else set(pooler.parameters())
        plain: list[torch.nn.Parameter] = []
        decayed: list[torch.nn.Parameter] = []
        for weight in model.parameters():
            if weight.requires_grad and weight not in unused:
                weight.grad = torch.zeros_like(weight)
                (decayed if weight.ndim > 1 and weight is not table else plain).append(weight)
        return torch.optim.AdamW(
            [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=self._rate,
            fused=True,
            capturable=self._on_card,
        )

    def _eager(self, length: int) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        with torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False, enabled=self._bfloat16):
            student = self._forward(length).float()
        squares = (student - self._teacher).square().sum(dim=1)
        count = self._weights.sum()
        (squares * self._weights).mean().backward()  # a batch with few texts has less weight
        self._loss.copy_(torch.stack([(squares.detach() * self._weights).sum() / count, count]))
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._max_norm)
        self.optimizer.step()

    def _forward(self, length: int) -> torch.Tensor:
        """Return the vectors of texts that all have ``length`` tokens, without a mask, so that attention is fastest."""
        places = self._batches.starts[self._rows][:, None] + torch.arange(length, device=self._device)
        ids = self._batches.ids[places].long()
        encoder = self._model[0].auto_model
        tokens = encoder.encoder(encoder.embeddings(input_ids=ids))[0]
        features = {"token_embeddings": tokens, "attention_mask": torch.ones_like(ids)}
        for module in list(self._model)[1:]:
            features = module(features)
        return features["sentence_embedding"]

    def _record(self, length: int) -> Any:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._eager(length)
        return graph

    def _warm_up(self, length: int) -> None:
        """Make libraries set up on first use, outside of a graph, and undo what the student learnt in doing so."""
        before = [weight.detach().clone() for weight in self._model.parameters()]
        state = {id(w): {k: v.clone() for k, v in s.items()} for w, s in self.optimizer.state.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._eager(length)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for weight, kept in zip(self._model.parameters(), before, strict=True):
                weight.copy_(kept)
            for weight, values in self.optimizer.state.items():
                for name, value in values.items():
                    known = state.get(id(weight))
                    value.zero_() if known is None else value.copy_(known[name])


def _on_card(vectors: npt.NDArray[np.floating[Any]], device: Any) -> torch.Tensor | npt.NDArray[np.floating[Any]]:
    """Return the teacher's vectors, on the card if there is room for them."""
    if device.type == "cuda" and 2 * vectors.size > ROOM * torch.cuda.mem_get_info(device)[0]:
        return vectors
    held = torch.empty(vectors.shape, dtype=torch.float16, device=device)
    for start in range(0, len(vectors), _CHUNK):
        held[start : start + _CHUNK] = torch.from_numpy(np.array(vectors[start : start + _CHUNK], dtype=np.float16))
    return held


def _save(checkpoints: Path, model: Any, step: Step, number: int, curve: list[dict[str, float]]) -> None:
    checkpoints.mkdir(parents=True, exist_ok=True)
    new = checkpoints / f"{STATE}.new"
    state = {"model": model.state_dict(), "optimizer": step.optimizer.state_dict(), "step": number, "curve": curve}
    torch.save(state, new)
    new.replace(checkpoints / STATE)


OF_THE_DEVICE = ("capturable", "fused")
"""Settings of an optimizer that differ in a checkpoint from another device."""


def _resume(checkpoints: Path, model: Any, step: Step) -> tuple[int, list[dict[str, float]]]:
    """Restore the weights and optimizer state of a killed run; return the steps that it has taken, and its curve."""
    path = checkpoints / STATE
    if not path.is_file():
        return 0, []
    state = torch.load(path, map_location=model.device, weights_only=True)
    model.load_state_dict(state["model"])
    groups = step.optimizer.param_groups
    rates = [group["lr"] for group in groups]
    for group, saved in zip(groups, state["optimizer"]["param_groups"], strict=True):
        saved.update({name: group[name] for name in OF_THE_DEVICE})
    step.optimizer.load_state_dict(state["optimizer"])
    for group, rate in zip(step.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate  # the tensor that the graphs read
    return int(state["step"]), list(state["curve"])
