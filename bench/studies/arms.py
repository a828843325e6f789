"""The arms of :mod:`bench.studies.ablations`, the students that they start from, and averages of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.models import Pooling, WeightedLayerPooling
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench.studies.forms import FORMS
from edgeleaf.models.resolve import resolve
from edgeleaf.recipe.specs import ObjectiveSpec
from edgeleaf.training.student import build_student

TEACHER = "sentence-transformers/all-mpnet-base-v2"
START = "sentence-transformers/all-MiniLM-L6-v2"
WINDOW = 128
"""As in export/recipes/mpnet.toml."""
DECAY = 0.99
"""What the moving average keeps of itself at each step."""
SNAPSHOTS = (0.6, 0.7, 0.8, 0.9, 1.0)
"""After which shares of the steps weights are kept for their mean."""


@dataclass(frozen=True)
class Arm:
    """One run. Anything that it does not set is as in the base.

    Args:
        objective: changed fields of ObjectiveSpec.
        kinds: kinds of training texts.
        share: share of the budget's texts; additional passes make up for it.
        pooling, layers, ridge: of the student; ridge None leaves the projection random.
        start: the encoder it starts from: a name of the hub, or one given by ``--start``.
        hidden_layers: whether the pooling reads the weighted mean of all layers' outputs, with trained weights.
        averages: whether two averages of the run's weights are judged, too.
        definitions: whether the texts of ``--definitions`` stay among the training texts.
        form: a form of :mod:`bench.studies.forms`; a quarter of the texts is replaced by texts of this form.
        seed: seed of the order of texts.
    """

    objective: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("query", "document")
    share: float = 1.0
    pooling: tuple[str, ...] = ("mean",)
    layers: int | None = None
    ridge: float | None = 1.0
    start: str = START
    hidden_layers: bool = False
    averages: bool = False
    definitions: bool = True
    form: str | None = None
    seed: int = 0


BASE = ObjectiveSpec(epochs=1.0, batch_size=32, learning_rate=5e-4, checkpoint_steps=10**6)
BOTH = ("mean", "cls")
STATIC: dict[str, Any] = {"layers": 0, "pooling": ("mean", "max")}
ARMS = {
    "base": Arm(averages=True),
    "base, another seed": Arm(seed=1),
    "mean and cls": Arm(pooling=BOTH),
    "mean, max and cls": Arm(pooling=("mean", "max", "cls")),
    "mean and cls of all layers, weighted": Arm(pooling=BOTH, hidden_layers=True),
    "queries only": Arm(kinds=("query",)),
    "documents only": Arm(kinds=("document",)),
    "a third of the texts, three passes": Arm(share=1 / 3, objective={"epochs": 3.0}),
    "batch 16, rate 3.5e-4": Arm(objective={"batch_size": 16, "learning_rate": 3.5e-4}),
    "batch 128, rate 1e-3": Arm(objective={"batch_size": 128, "learning_rate": 1e-3}),
    "rate 2.5e-4": Arm(objective={"learning_rate": 2.5e-4}),
    "rate 1e-3": Arm(objective={"learning_rate": 1e-3}),
    "no definitions": Arm(definitions=False),
    "random projection": Arm(ridge=None),
    **{f"a quarter {form}": Arm(form=form) for form in FORMS},
    "six of bge-small-en-v1.5's layers": Arm(start="bge-small-en-v1.5", layers=6),
    "six of e5-small-v2's layers": Arm(start="e5-small-v2", layers=6),
    "three of the teacher's layers": Arm(start=TEACHER, layers=3),
    "four layers": Arm(layers=4),
    "three layers": Arm(layers=3),
    "three layers, mean and cls": Arm(layers=3, pooling=BOTH),
    "no layer, rate 1e-3": Arm(**STATIC, objective={"learning_rate": 1e-3}),
    "no layer, rate 5e-3": Arm(**STATIC, objective={"learning_rate": 5e-3}),
    "no layer, rate 2e-2": Arm(**STATIC, objective={"learning_rate": 2e-2}),
    "no layer, rate 5e-3, ten passes": Arm(**STATIC, objective={"learning_rate": 5e-3, "epochs": 10.0}),
    "no layer, mean alone, rate 5e-3, ten passes": Arm(layers=0, objective={"learning_rate": 5e-3, "epochs": 10.0}),
}
OFF_THE_HUB = {arm.start for arm in ARMS.values()} - {START, TEACHER}
"""Starts that must be given by ``--start``; :mod:`bench.studies.starts` makes them of packages."""


class LayerPooling(Pooling):  # type: ignore[misc]
    """sentence-transformers' WeightedLayerPooling and its Pooling as one module, since a student has one pooling."""

    def __init__(self, width: int, modes: Sequence[str], *, layers: int) -> None:
        super().__init__(width, tuple(modes))
        self.layers = WeightedLayerPooling(width, num_hidden_layers=layers, layer_start=1)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return dict(super().forward(self.layers(features)))


def untrained(arm: Arm, dim: int, starts: Mapping[str, Path]) -> Any:
    """Return the student that an arm starts from, with a random projection.

    Args:
        arm: the arm.
        dim: the teacher's width.
        starts: folders of the encoders in OFF_THE_HUB that arms of this run need.
    """
    torch.manual_seed(0)
    start = starts.get(arm.start) or resolve(arm.start)
    kept = None
    if arm.layers is not None:
        count = json.loads((start / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
        kept = np.linspace(0, count - 1, arm.layers).round().astype(int).tolist()  # first, last, evenly between
    model = build_student(start, dim=dim, max_length=WINDOW, pooling=arm.pooling, layers=kept)
    if arm.hidden_layers:
        config = model[0].auto_model.config
        config.output_hidden_states = True
        model[1] = LayerPooling(config.hidden_size, arm.pooling, layers=config.num_hidden_layers)
    return model


class Averages:
    """Averages of a model's weights while it is trained; a context manager.

    Args:
        model: the model.
        steps: how many steps it will be trained.
    """

    def __init__(self, model: Any, steps: int) -> None:
        self._model, self._step = model, 0
        self._at = [round(share * steps) for share in SNAPSHOTS]
        self._moving: dict[str, torch.Tensor] = {}
        self._sum: dict[str, torch.Tensor] = {}

    def __enter__(self) -> Averages:
        self._hook = register_optimizer_step_post_hook(self._stepped)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def states(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the averages, by name."""
        mean = {name: total / len(self._at) for name, total in self._sum.items()}
        return {"moving average": self._moving, "mean of five checkpoints": mean}

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if not isinstance(optimizer, torch.optim.AdamW):  # one step is one of each part of the optimizer
            return
        self._step += 1
        weights = {name: weight.detach() for name, weight in self._model.named_parameters()}
        if not self._moving:
            self._moving = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            self._moving[name].lerp_(weight, 1 - DECAY)
        if self._step in self._at:
            for name, weight in weights.items():
                self._sum[name] = self._sum[name] + weight if name in self._sum else weight.clone()
