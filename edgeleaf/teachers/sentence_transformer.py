"""Any sentence-transformers model as a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.models.loading import autocast, load_sentence_transformer, with_window
from edgeleaf.models.resolve import identity, resolve
from edgeleaf.models.weights import tokenizer_sha256, weights_sha256
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.teachers.base import Rendered
from edgeleaf.teachers.window import Window, own_window, uncut_tokenizer

TEACHER_BATCH, TEACHER_BATCH_GPU = 32, 65536
"""Texts that a teacher gets per call; on a GPU this is also the size of a shard."""
TOKENS_GPU = 65536
"""Tokens that a GPU encodes per call."""
SEES_LATER = 1e-5
"""If a first token's vector differs by more than this, it depends on the last token."""
NOT_UNIT = 0.02
"""A length that differs from 1 by more than this is not due to rounding: bfloat16 is off by 0.001."""


class SentenceTransformerTeacher:
    """Any sentence-transformers model: a local folder, a hub id, or one that a pip package carries.

    Args:
        spec: which model, its prompts and its window.

    Raises:
        ModelError: the model cannot be found or loaded.
        MissingExtra: sentence-transformers is not installed.
    """

    precision = ""

    def __init__(self, spec: TeacherSpec) -> None:
        self.folder = resolve(spec.model, revision=spec.revision)
        self._model = load_sentence_transformer(
            self.folder, max_length=spec.max_length, trust_remote_code=spec.trust_remote_code
        )
        self.max_length = spec.max_length
        self.device: str = self._model.device.type
        self.batch_size = TEACHER_BATCH_GPU if self.device == "cuda" else TEACHER_BATCH
        self._unit = True
        self._prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
        self.space = space_of(
            self._model,
            self.folder,
            name=identity(spec.model),
            revision=spec.revision,
            query_prompt=spec.query_prompt,
            document_prompt=spec.document_prompt,
        )

    @property
    def model(self) -> Any:
        """The sentence-transformers model, in float32."""
        return self._model

    def widen(self, max_length: int) -> None:
        """Read this many tokens of each text from now on.

        Raises:
            ModelError: the model does not have that many positions.
        """
        with_window(self._model, max_length, self.folder)
        self.max_length = max_length

    def widened(self, *, at_least: int) -> Window:
        """Read as many tokens of each text as the model's own files name, from now on; see :class:`Teacher`."""
        self.widen(own_window(self.folder, at_least=at_least))
        return Window(self.folder, tokens=self.max_length, prompt=self._prompts["document"])

    def lengths(self, texts: Sequence[str], *, kind: Kind) -> list[int]:
        """Return the tokens of each text, with prompt and special tokens; see :class:`Teacher`."""
        encoded = uncut_tokenizer(self.folder).encode_batch([self._prompts[kind] + text for text in texts])
        return [len(encoding.ids) for encoding in encoded]

    def rendered(self, text: str, *, kind: Kind) -> Rendered:
        """Return a text with its prompt, and the tokens that the model reads of it; see :class:`Teacher`."""
        whole = self._prompts[kind] + text
        try:
            ids = [int(token) for token in self._model.preprocess([whole])["input_ids"][0]]
            tokens = tuple(map(str, self._model.tokenizer.convert_ids_to_tokens(ids)))
        except (KeyError, TypeError, AttributeError):  # a model whose tokens are not ids, such as a bag of words
            return Rendered(whole)
        return Rendered(whole, tokens, tuple(ids))

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Encode in bfloat16 if the processor has it; see :class:`Teacher`."""
        prompt = self._prompts[kind]
        with autocast(self.device):
            if self.device == "cuda" and _takes_tokens(self._model):
                vectors = encode_by_length(self._model, [prompt + text for text in texts])
            else:
                vectors = self._model.encode(
                    list(texts),
                    prompt=prompt,
                    batch_size=TEACHER_BATCH,
                    show_progress_bar=False,
                )
        exact = np.asarray(vectors, dtype=np.float32)
        norms = np.linalg.norm(exact, axis=1, keepdims=True)  # in float32: a norm taken in bfloat16 is off by 0.1%
        self._say_norms(norms)
        exact /= np.maximum(norms, 1e-12)
        return exact

    def _say_norms(self, norms: npt.NDArray[np.float32]) -> None:
        """Warn once if vectors are not of unit length: an index of them must be searched by cosine."""
        if self._unit and len(norms) and np.abs(norms - 1).max() > NOT_UNIT:
            self._unit = False
            progress.warn(
                f"{self.space.teacher} gives vectors of length {norms.min():.3g} to {norms.max():.3g}; edgeleaf works "
                "with directions: give the index's vectors unit length too, or search it by cosine"
            )


def encode_by_length(model: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Encode texts of one length at a time, without padding; meant for a GPU and tens of thousands of texts at once.

    On an H100, sentence-transformers' own ``encode`` waits for Python most of the time (docs/log/training.md).

    Args:
        model: a sentence-transformers model that pools over all tokens.
        texts: texts with their prompts.

    Returns:
        float32 [len(texts), dim], equal to ``model.encode(texts)`` except for the last digits.
    """
    import torch

    features = model.preprocess(list(texts))
    present = features["attention_mask"].bool()
    tokens = {name: part for name, part in features.items() if getattr(part, "shape", None) == present.shape}
    lengths = present.sum(dim=1)
    places, found = [], []
    with torch.inference_mode():
        for length in lengths.unique().tolist():
            for rows in (lengths == length).nonzero().flatten().split(max(1, TOKENS_GPU // max(1, length))):
                of_length = present[rows]
                batch = {
                    name: part[rows][of_length].view(len(rows), length).to(model.device)
                    for name, part in tokens.items()
                }
                places.append(rows)
                found.append(model(batch)["sentence_embedding"].float())
    vectors = torch.cat(found).cpu()
    return vectors[torch.cat(places).argsort()].numpy()  # type: ignore[no-any-return]


def _takes_tokens(model: Any) -> bool:
    """Return whether a model reads token ids and a mask, and pools a prompt's tokens with the text's."""
    return type(model[0]).__name__ == "Transformer" and all(getattr(part, "include_prompt", True) for part in model)


def space_of(
    model: Any,
    folder: Path,
    *,
    name: str,
    revision: str | None = None,
    query_prompt: str = "",
    document_prompt: str = "",
) -> VectorSpace:
    """Return the vector space of a sentence-transformers model that was loaded from ``folder``."""
    pooling = next((str(part.pooling_mode) for part in model if type(part).__name__ == "Pooling"), "none")
    return VectorSpace(
        teacher=name,
        revision=revision,
        weights_sha256=weights_sha256(folder),
        pooling=pooling,
        normalized=True,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        dim=int(model.get_embedding_dimension()),
        tokenizer_sha256=tokenizer_sha256(folder),
        attention=attention_direction(model),
    )


def attention_direction(model: Any) -> Literal["bidirectional", "causal"] | None:
    """Find out whether a token's vector depends on the tokens after it; None for a model without token vectors."""
    import torch

    if type(model[0]).__name__ != "Transformer":
        return None
    try:
        encoded = model.preprocess(["one two three"])
        ids = encoded["input_ids"][:1].to(model.device)
        other = ids.clone()
        other[0, -1] = ids[0, 0] if ids[0, -1] != ids[0, 0] else ids[0, 1]
        with torch.inference_mode():
            first = [
                model[0]({"input_ids": row, "attention_mask": torch.ones_like(row)})["token_embeddings"][0, 0]
                for row in (ids, other)
            ]
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError):
        return None
    if ids.shape[1] < 2:
        return None
    return "bidirectional" if float((first[0] - first[1]).abs().max()) > SEES_LATER else "causal"


def load(spec: TeacherSpec) -> SentenceTransformerTeacher:
    """Open a recipe's teacher."""
    return SentenceTransformerTeacher(spec)
