"""A decoder's forward pass with a mask of our own, its pooling, and the probe of its direction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import EdgeleafError, ModelError, reason_of
from edgeleaf.models.loading import autocast, check_finite, float32_kwargs, whole_checkpoint
from edgeleaf.models.safety import check_model
from edgeleaf.recipe.teachers import Attention
from edgeleaf.records import RecordError, read_json

Side = Literal["left", "right"]
SEES_LATER = 1e-5
"""If a first token's state changes by more than this share of its length, it depends on the last token."""
SAME = 1e-3
"""Padding may change a vector by this share of its length at most: rounding, and nothing else."""


class DecoderModel:
    """A decoder with a direction and a pooling.

    Args:
        model: a model of transformers that gives hidden states.
        name: what messages call it.
        attention: whether a token sees those after it.
        pooling: the mean of all tokens' states, or the last token's.
    """

    def __init__(self, model: Any, *, name: str, attention: Attention, pooling: Literal["mean", "last"]) -> None:
        self._model, self._name, self._attention, self._pooling = model, name, attention, pooling
        self.device: str = model.device.type
        self.width = int(model.config.hidden_size)
        self.positions = int(getattr(model.config, "max_position_embeddings", None) or 1 << 20)

    def vectors(self, rows: Sequence[Sequence[int]], *, padding: Side = "right") -> npt.NDArray[np.float32]:
        """Return the pooled states of rows of ids, float32 [rows, width], not normalised.

        Args:
            rows: ids without padding, none empty.
            padding: the side on which shorter rows are filled up, which does not change a vector.
        """
        with autocast(self.device):
            return self._pooled(rows, padding)

    def _pooled(self, rows: Sequence[Sequence[int]], padding: Side) -> npt.NDArray[np.float32]:
        """Do what :meth:`vectors` does in whatever number format products are taken in."""
        states, mask = self._states(rows, padding)
        states = states.float()
        if self._pooling == "mean":
            share = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * share).sum(dim=1) / share.sum(dim=1)
        else:
            last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
            pooled = states[range(len(rows)), last]
        return np.asarray(pooled.float().cpu().numpy(), dtype=np.float32)

    def _states(self, rows: Sequence[Sequence[int]], padding: Side) -> tuple[Any, Any]:
        """Return the last hidden states [rows, longest, width], and which tokens are the rows' own [rows, longest]."""
        import torch

        longest = max(map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.bool)
        for place, row in enumerate(rows):
            own = slice(longest - len(row), None) if padding == "left" else slice(0, len(row))
            ids[place, own] = torch.tensor(row, dtype=torch.long)
            mask[place, own] = True
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        with torch.inference_mode():
            output = self._model(
                input_ids=ids,
                attention_mask=additive_mask(mask, self._attention),
                position_ids=(mask.long().cumsum(dim=1) - 1).clamp(min=0),
                use_cache=False,
            )
        return output.last_hidden_state, mask

    def check(self, probe: tuple[Sequence[int], Sequence[int]]) -> None:
        """Check in float32 that the installed transformers obeys the mask: alone, and padded on either side.

        Args:
            probe: two rows of ids that differ in their last token alone.

        Raises:
            ModelError: the first token sees the last one though the model is causal, or does not though it is
                bidirectional; or padding changes a vector.
        """
        import transformers

        where = f"{self._name} in transformers {transformers.__version__}"
        longer = [*probe[0], *probe[0]]
        cases: list[tuple[str, list[Sequence[int]], Side]] = [
            ("alone", [], "right"),
            ("padded on the right", [longer], "right"),
            ("padded on the left", [longer], "left"),
        ]
        for how, others, padding in cases:
            one, other = (self._first_state([row, *others], padding) for row in probe)
            sees = bool((one - other).norm() > SEES_LATER * one.norm())
            if sees != (self._attention == "bidirectional"):
                raise ModelError(
                    f"{where} is {'bidirectional' if sees else 'causal'}, {how}; the recipe says {self._attention}: "
                    "install another version of transformers, one that takes a mask of its caller"
                )
        alone = self._pooled([probe[0]], "right")[0]
        for _, others, padding in cases[1:]:
            padded = self._pooled([probe[0], *others], padding)[0]
            if np.linalg.norm(padded - alone) > SAME * np.linalg.norm(alone):
                raise ModelError(f"{where}: padding on the {padding} changes a vector; install another version")

    def _first_state(self, rows: list[Sequence[int]], padding: Side) -> Any:
        """Return the state of the first token of the first row, without autocast."""
        states, mask = self._states(rows, padding)
        return states[0, int(mask[0].int().argmax())].float()


def additive_mask(mask: Any, attention: Attention) -> Any:
    """Return what is added to attention scores, [rows, 1, longest, longest]: 0 where a token looks, else very low.

    A token looks at its row's own tokens; in a causal model not at those after it. One that is padding looks at itself,
    so that no row of the softmax is empty.

    Args:
        mask: bool [rows, longest], true for a row's own tokens.
        attention: the direction.
    """
    import torch

    longest = mask.shape[1]
    looks = mask[:, None, None, :].expand(-1, 1, longest, -1)
    if attention == "causal":
        looks = looks & torch.ones(longest, longest, dtype=torch.bool, device=mask.device).tril()
    looks = looks | torch.eye(longest, dtype=torch.bool, device=mask.device)
    low = torch.finfo(torch.bfloat16).min  # finite in every number format that autocast uses
    return torch.zeros(looks.shape, device=mask.device).masked_fill(~looks, low)


def load_decoder(
    folder: Path, *, attention: Attention, pooling: Literal["mean", "last"], implementation: str = "sdpa"
) -> DecoderModel:
    """Load a decoder in float32, on a GPU if there is one; code that comes with a model is never run.

    Args:
        folder: a model of transformers, or of sentence-transformers with the transformer in its root.
        attention, pooling: see :class:`DecoderModel`.
        implementation: transformers' attention: ``sdpa`` or ``eager``, which give the same vectors.

    Raises:
        ModelError: no model, an architecture that transformers does not have itself, damaged or missing weights, or
            modules after the transformer other than pooling and normalisation.
    """
    import torch
    from transformers import AutoModel

    check_model(folder)
    _check_modules(folder)
    try:
        with whole_checkpoint(folder):
            model = AutoModel.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, **float32_kwargs(implementation)
            )
    except EdgeleafError:
        raise
    except Exception as error:  # transformers raises many types of errors, and safetensors has its own
        raise ModelError(f"{folder}: transformers cannot load it: {reason_of(error)}") from None
    if getattr(model.config, "is_encoder_decoder", False) or not hasattr(model.config, "num_key_value_heads"):
        raise ModelError(
            f"{folder}: {type(model).__name__} is not a decoder such as Qwen2 or Mistral; "
            'leave teacher.kind out, which means "sentence-transformers"'
        )
    check_finite(model, folder)
    model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return DecoderModel(model, name=folder.name, attention=attention, pooling=pooling)


def _check_modules(folder: Path) -> None:
    if not (folder / "modules.json").is_file():
        return
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in read_json(folder / "modules.json")]
    except (OSError, RecordError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder}: damaged modules.json ({reason_of(error)}); fetch or copy the model again"
        ) from None
    if more := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise ModelError(
            f"{folder} has a module {more[0]}, which a teacher of kind decoder does not have; "
            'leave teacher.kind out, which means "sentence-transformers"'
        )
