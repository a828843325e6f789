"""A decoder (Qwen2, Mistral, ...) as a teacher: its direction, what it reads around a text, and its pooling are said.

What a checkpoint says about them is not reliable. transformers 4 ignores ``is_causal=False``, or obeys until a batch is
padded; transformers 5 leaves out the ``</s>`` that a Mistral tokenizer's settings ask for. So this module makes mask
and ids itself, and a probe at opening refuses a model that does not see what it should.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import ModelError, RecipeError
from edgeleaf.models.resolve import identity, resolve
from edgeleaf.models.weights import tokenizer_sha256, weights_sha256
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.teachers import TeacherSpec
from edgeleaf.teachers.around import around_of
from edgeleaf.teachers.base import Rendered
from edgeleaf.teachers.decoder_model import DecoderModel, load_decoder
from edgeleaf.teachers.decoder_tokens import DecoderTokens
from edgeleaf.teachers.window import Window, own_window
from edgeleaf.vectors import unit_rows

BATCH, BATCH_GPU = 32, 4096
TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens that are encoded at once, padding included."""


class DecoderTeacher:
    """A decoder of transformers: a local folder or a hub id, in transformers' or sentence-transformers' layout.

    Args:
        spec: which model, its direction, pooling, window, and what it reads around a text.

    Raises:
        RecipeError: the direction or the pooling is missing, or what lies around a text makes no sense.
        ModelError: the model cannot be found or loaded; it has modules after the transformer; it does not see what its
            direction says; a token is not in its vocabulary; it has too few positions.
    """

    precision = ""
    folder = None

    def __init__(self, spec: TeacherSpec) -> None:
        if spec.attention is None:
            raise RecipeError('teacher.attention is missing; a decoder needs "bidirectional" or "causal"')
        if spec.pooling not in ("mean", "last"):
            came = "missing" if spec.pooling is None else f'"{spec.pooling}"'
            raise RecipeError(f'teacher.pooling is {came}; a decoder needs "mean" or "last"')
        around = around_of(spec)
        place = resolve(spec.model, revision=spec.revision)
        self._place = place
        self._tokens = DecoderTokens(
            place, around, window=spec.max_length, bos_token=spec.bos_token, eos_token=spec.eos_token
        )
        self._model: DecoderModel = load_decoder(place, attention=spec.attention, pooling=spec.pooling)
        self._model.check(self._tokens.probe())
        if spec.dims is not None and spec.dims > self._model.width:
            raise RecipeError(f"teacher.dims is {spec.dims}; {spec.model} gives {self._model.width} numbers")
        self.device = self._model.device
        self.batch_size = BATCH_GPU if self.device == "cuda" else BATCH
        self.max_length = spec.max_length
        self._check_positions()
        self.space = VectorSpace(
            teacher=identity(spec.model),
            revision=spec.revision,
            weights_sha256=weights_sha256(place),
            pooling="lasttoken" if spec.pooling == "last" else "mean",
            normalized=True,
            query_prompt=around["query"].prompt,
            document_prompt=around["document"].prompt,
            dim=spec.dims or self._model.width,
            tokenizer_sha256=tokenizer_sha256(place),
            attention=spec.attention,
            query_context=around["query"].context or None,
            query_suffix=around["query"].suffix or None,
            document_suffix=around["document"].suffix or None,
            bos_token=spec.bos_token,
            eos_token=spec.eos_token,
        )

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Encode texts of similar length together; see :class:`edgeleaf.teachers.base.Teacher`."""
        rows = self._tokens.ids(texts, kind=kind)
        by_length = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        vectors = np.empty((len(rows), self.space.dim), dtype=np.float32)
        start = 0
        while start < len(rows):
            end = start + 1
            while (
                end < len(rows)
                and end - start < self.batch_size
                and (end + 1 - start) * len(rows[by_length[end]]) <= TOKENS.get(self.device, TOKENS["cpu"])
            ):
                end += 1
            batch = by_length[start:end]
            vectors[batch] = self._model.vectors([rows[row] for row in batch])[:, : self.space.dim]
            start = end
        if not np.isfinite(vectors).all():
            raise ModelError(f"{self.space.teacher} gives numbers that are not finite; its weights may be damaged")
        return unit_rows(vectors)

    def rendered(self, text: str, *, kind: Kind) -> Rendered:
        """Return a text with all that is put around it, and its tokens."""
        return self._tokens.rendered(text, kind=kind)

    def lengths(self, texts: Sequence[str], *, kind: Kind) -> list[int]:
        """Return the tokens of each text alone, which are what the window counts."""
        return self._tokens.lengths(texts)

    def widened(self, *, at_least: int) -> Window:
        """Read as many tokens as sentence-transformers' settings in the folder name, if there are any.

        The positions of a decoder say nothing about the texts that it was trained on, so they count only as a limit.
        """
        own = own_window(self._place, at_least=at_least, by_positions=False)
        self.max_length = max(at_least, min(own, self._model.positions - self._tokens.most_around()))
        self._tokens.window = self.max_length
        return Window(self._place, tokens=self.max_length, tokenizer=self._tokens.alone)

    def _check_positions(self) -> None:
        around = self._tokens.most_around()
        if self.max_length + around > self._model.positions:
            raise RecipeError(
                f"teacher.max_length is {self.max_length}, and {around} tokens are put around a text; "
                f"{self._place.name} has positions for {self._model.positions}"
            )


def load(spec: TeacherSpec) -> DecoderTeacher:
    """Open a recipe's decoder."""
    return DecoderTeacher(spec)
