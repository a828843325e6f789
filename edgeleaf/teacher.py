"""Texts to teacher vectors. A teacher is a black box behind one protocol; its vectors are cached in shards.

A cache folder belongs to one vector space and window. A shard is a pair of files, ``00012.npy`` (float16 [n, dim],
memory-mapped) and ``00012.keys.npy`` (16 bytes a text, hash of prompt and text); the second is written last, so a
killed run loses the shard it was in and no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeleaf import models, progress
from edgeleaf.bundle import VectorSpace, write_npy
from edgeleaf.errors import ModelError
from edgeleaf.recipe import TeacherSpec
from edgeleaf.student import autocast, load_sentence_transformer
from edgeleaf.texts import KINDS, Kind, Text

SHARD = 128
"""Texts in a shard, at least: what a killed run loses, a quarter of a minute's work on two cores."""
BATCH_SIZE, BATCH_SIZE_GPU = 32, 65536
"""Texts that a teacher is given at a time; on a GPU that is a shard too."""
TOKENS_GPU = 65536
"""Tokens that a GPU encodes at a time."""
NOT_UNIT = 0.02
"""Lengths of vectors so far from 1 are not rounding: bfloat16 is off by 0.001."""


class Teacher(Protocol):
    """Anything that turns texts into vectors of one space, cutting them off at ``max_length`` tokens."""

    space: VectorSpace
    max_length: int
    precision: str
    """Empty for the teacher's own vectors; else what they are close to it by, and a cache of their own."""
    batch_size: int
    """How many texts it wants at a time."""

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Return float32 [len(texts), dim], unit L2 norm, the prompt of ``kind`` applied, order kept."""
        ...


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
        self.folder = models.resolve(spec.model, revision=spec.revision)
        self._model = load_sentence_transformer(self.folder, max_length=spec.max_length)
        self.max_length = spec.max_length
        self.device: str = self._model.device.type
        self.batch_size = BATCH_SIZE_GPU if self.device == "cuda" else BATCH_SIZE
        self._unit = True
        self._prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
        self.space = space_of(
            self._model,
            self.folder,
            name=spec.model,
            revision=spec.revision,
            query_prompt=spec.query_prompt,
            document_prompt=spec.document_prompt,
        )

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Encode in bfloat16 where the processor has it; see :class:`Teacher`."""
        prompt = self._prompts[kind]
        with autocast(self.device):
            if self.device == "cuda" and _takes_tokens(self._model):
                vectors = encode_by_length(self._model, [prompt + text for text in texts])
            else:
                vectors = self._model.encode(
                    list(texts),
                    prompt=prompt,
                    batch_size=BATCH_SIZE,
                    show_progress_bar=False,
                )
        exact = np.asarray(vectors, dtype=np.float32)
        norms = np.linalg.norm(exact, axis=1, keepdims=True)  # in float32: a norm taken in bfloat16 is off by 0.1%
        self._say_norms(norms)
        exact /= np.maximum(norms, 1e-12)
        return exact

    def _say_norms(self, norms: npt.NDArray[np.float32]) -> None:
        """Say once that vectors have other lengths than 1: an index of them is searched by cosine, or not at all."""
        if self._unit and len(norms) and np.abs(norms - 1).max() > NOT_UNIT:
            self._unit = False
            progress.say(
                f"{self.space.teacher} gives vectors of length {norms.min():.3g} to {norms.max():.3g}; edgeleaf works "
                "with directions: give the index's vectors unit length too, or search it by cosine"
            )


def encode_by_length(model: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Encode texts of one length at a time, which pads nothing: for a GPU, and tens of thousands of texts at once.

    On an H100 sentence-transformers' own ``encode`` waits for Python most of the time (docs/log.md).

    Args:
        model: a sentence-transformers model that pools over all tokens.
        texts: prompts included.

    Returns:
        float32 [len(texts), dim], what ``model.encode(texts)`` returns but for the arithmetic's last digits.
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
    """Whether a model reads token ids and a mask, and pools a prompt's tokens with the text's."""
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
    """Return the vector space of a loaded sentence-transformers model that lies in ``folder``."""
    pooling = next((str(part.pooling_mode) for part in model if type(part).__name__ == "Pooling"), "none")
    return VectorSpace(
        teacher=name,
        revision=revision,
        weights_sha256=models.weights_sha256(folder),
        pooling=pooling,
        normalized=True,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        dim=int(model.get_embedding_dimension()),
    )


def teacher_vectors(texts: Sequence[Text], teacher: Teacher, cache: Path) -> npt.NDArray[np.float16]:
    """Return the teacher's vectors of ``texts``, from the cache where it has them.

    Args:
        texts: queries and documents; each gets the prompt of its kind.
        teacher: the black box.
        cache: a folder that this teacher's shards live in; made when it is not there.

    Returns:
        float16 [len(texts), dim], rows of unit L2 norm up to float16, in the order of ``texts``.

    Raises:
        ModelError: the teacher returned a vector that is not finite, or not of the width and norm it promises.
    """
    parts = [teacher.space.id.replace("/", "-"), str(teacher.max_length), teacher.precision]
    folder = cache / "-".join(filter(None, parts))
    folder.mkdir(parents=True, exist_ok=True)
    keys = [_key(text, teacher.space) for text in texts]
    known = _known(folder)
    distinct = dict(zip(keys, texts, strict=True)).items()
    # Like lengths together: less padding. The order does not depend on what is known, so a resumed run's batches are
    # those that it would have had.
    by_length = sorted(distinct, key=lambda item: (item[1].kind, -len(item[1].text)))
    missing = [(key, text) for key, text in by_length if key not in known]
    total = len(distinct)
    if 0 < len(missing) < total:
        progress.say(f"teacher vectors: resuming at {total - len(missing):,} of {total:,} texts")
    # The longest texts come first: counted in texts, the time left would be many times too long.
    characters = sum(len(text.text) for _, text in missing)
    with progress.bar("teacher vectors, characters", characters) as advance:
        shard = max(SHARD, teacher.batch_size)
        for start in range(0, len(missing), shard):
            part = missing[start : start + shard]
            _write_shard(folder, [key for key, _ in part], _encode(teacher, [text for _, text in part], advance))
    known = _known(folder)
    return _gather(folder, [known[key] for key in keys], teacher.space.dim)


def _encode(teacher: Teacher, texts: list[Text], advance: Callable[[int], None]) -> npt.NDArray[np.float32]:
    """Encode one shard, a batch of texts of one kind at a time."""
    vectors = np.zeros((len(texts), teacher.space.dim), dtype=np.float32)
    for kind in KINDS:
        of_kind = [i for i, text in enumerate(texts) if text.kind == kind]
        for start in range(0, len(of_kind), teacher.batch_size):
            rows = of_kind[start : start + teacher.batch_size]
            encoded = teacher.encode([texts[row].text for row in rows], kind=kind)
            if encoded.shape != (len(rows), teacher.space.dim):
                raise ModelError(
                    f"the teacher returned {encoded.shape} for {len(rows)} texts; "
                    f"{teacher.space.dim} numbers each are needed"
                )
            vectors[rows] = encoded
            advance(sum(len(texts[row].text) for row in rows))
    norms = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) < 1e-2))
    if len(wrong):
        raise ModelError(
            f"the teacher's vector of {texts[wrong[0]].text[:60]!r} has norm {norms[wrong[0]]:.4g}; "
            "unit vectors are needed: let the teacher normalise"
        )
    return vectors


def _key(text: Text, space: VectorSpace) -> bytes:
    prompt = space.query_prompt if text.kind == "query" else space.document_prompt
    return hashlib.blake2b((prompt + text.text).encode(), digest_size=16).digest()


def _write_shard(folder: Path, keys: list[bytes], vectors: npt.NDArray[np.float32]) -> None:
    number = len(list(folder.glob("*.keys.npy")))
    write_npy(folder / f"{number:05d}.npy", vectors.astype(np.float16))
    write_npy(folder / f"{number:05d}.keys.npy", np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16))


def _known(folder: Path) -> dict[bytes, tuple[int, int]]:
    """Map a text's key to its shard and row."""
    places = {}
    for path in sorted(folder.glob("*.keys.npy")):
        number = int(path.name.split(".")[0])
        for row, key in enumerate(np.load(path)):
            places[key.tobytes()] = (number, row)
    return places


def _gather(folder: Path, places: list[tuple[int, int]], dim: int) -> npt.NDArray[np.float16]:
    """Read vectors by (shard, row), a shard at a time."""
    vectors = np.empty((len(places), dim), dtype=np.float16)
    numbers, rows = np.array(places, dtype=np.int64).reshape(-1, 2).T
    order = np.argsort(numbers, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if here.size:
            shard = np.load(folder / f"{numbers[here[0]]:05d}.npy", mmap_mode="r")
            vectors[here] = shard[rows[here]]
    return vectors
