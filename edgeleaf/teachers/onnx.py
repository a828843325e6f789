"""An ONNX graph with its tokenizer as a teacher; the recipe says how its tokens' vectors are pooled."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.machine import usable_cores
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.bundle.session import session
from edgeleaf.errors import ModelError, RecipeError, reason_of
from edgeleaf.files import sha256
from edgeleaf.models.resolve import resolve
from edgeleaf.models.weights import tokenizer_sha256
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.teachers import TeacherSpec
from edgeleaf.records import RecordError, inside, shown
from edgeleaf.teachers.base import Rendered
from edgeleaf.teachers.window import Window
from edgeleaf.vectors import unit_rows

BATCH = 32
FILES = ("onnx/model.onnx", "model.onnx")
"""Where the graph is looked for if the recipe does not say."""
_KNOWN = ("input_ids", "attention_mask", "token_type_ids")
_VECTORS = ("sentence_embedding", "embedding", "embeddings", "pooler_output")
_TOKENS = ("last_hidden_state", "token_embeddings")


class OnnxTeacher:
    """A folder with an ONNX graph and a tokenizer.json.

    Args:
        spec: the folder, the graph's path in it (``file``), the pooling (None if the graph pools), prompts and window.

    Raises:
        ModelError: no graph or tokenizer there, a graph with inputs other than ids, mask and types, or without an
            output that the pooling fits.
        RecipeError: ``dims`` above the graph's width.
    """

    precision = ""
    device = "cpu"
    folder = None
    batch_size = BATCH

    def __init__(self, spec: TeacherSpec) -> None:
        from edgeleaf.graph.tokenizers.spec import reference_tokenizer

        place = Path(spec.model).expanduser()
        self._place = place = place.resolve() if place.is_dir() else resolve(spec.model, revision=spec.revision)
        file = _graph(place, spec.file)
        settings = place / "tokenizer.json"
        if not settings.is_file():
            raise ModelError(f"{place} has no tokenizer.json; put the model's tokenizer beside its graph")
        self._json = settings.read_text(encoding="utf-8")
        self._tokenizer = reference_tokenizer(self._json, spec.max_length)
        self._session = _opened(file)
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        if unknown := [name for name in self._inputs if name not in _KNOWN]:
            raise ModelError(f"{file} has an input {shown(unknown[0])}; a teacher's graph takes {', '.join(_KNOWN)}")
        self._pooling = spec.pooling
        self._output = self._chosen(file)
        self._prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
        self.max_length = spec.max_length
        width = self._vectors(["a"]).shape[1]
        if spec.dims is not None and spec.dims > width:
            raise RecipeError(f"teacher.dims is {spec.dims}; {file} gives {width} numbers")
        self.space = VectorSpace(
            teacher=str(place) if Path(spec.model).expanduser().is_dir() else spec.model,
            revision=spec.revision,
            weights_sha256=_hash(file),
            pooling={None: "none", "last": "lasttoken"}.get(spec.pooling, spec.pooling or "none"),
            normalized=True,
            query_prompt=spec.query_prompt,
            document_prompt=spec.document_prompt,
            dim=spec.dims or width,
            tokenizer_sha256=tokenizer_sha256(place),
        )

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Encode texts of similar length together; see :class:`edgeleaf.teachers.base.Teacher`."""
        whole = [self._prompts[kind] + text for text in texts]
        order = sorted(range(len(whole)), key=lambda row: len(whole[row]))
        vectors = np.empty((len(whole), self.space.dim), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            vectors[rows] = self._vectors([whole[row] for row in rows])[:, : self.space.dim]
        if not np.isfinite(vectors).all():
            raise ModelError(f"{self.space.teacher} gives numbers that are not finite")
        return unit_rows(vectors)

    def rendered(self, text: str, *, kind: Kind) -> Rendered:
        """Return a text with its prompt, and its tokens."""
        encoding = self._tokenizer.encode(self._prompts[kind] + text)
        return Rendered(self._prompts[kind] + text, tuple(encoding.tokens), tuple(encoding.ids))

    def lengths(self, texts: Sequence[str], *, kind: Kind) -> list[int]:
        """Return the tokens of each text, with prompt and special tokens."""
        encoded = self._uncut().encode_batch([self._prompts[kind] + text for text in texts])
        return [len(encoding.ids) for encoding in encoded]

    def widened(self, *, at_least: int) -> Window:
        """Return the recipe's own window: a graph does not say how long its texts may be."""
        return Window(self._place, tokens=self.max_length, prompt=self._prompts["document"], tokenizer=self._uncut())

    def _uncut(self) -> Any:
        from edgeleaf.graph.tokenizers.spec import UNLIMITED, reference_tokenizer

        return reference_tokenizer(self._json, UNLIMITED)

    def _vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector per text, float32 [len(texts), width], not normalised."""
        encoded = self._tokenizer.encode_batch(list(texts))
        longest = max(len(encoding.ids) for encoding in encoded)
        fed = {name: np.zeros((len(encoded), longest), dtype=np.int64) for name in _KNOWN}
        for row, encoding in enumerate(encoded):
            own = slice(0, len(encoding.ids))
            fed["input_ids"][row, own], fed["token_type_ids"][row, own] = encoding.ids, encoding.type_ids
            fed["attention_mask"][row, own] = 1
        if not fed["attention_mask"].any(axis=1).all():
            raise ModelError(f"{self._place}: its tokenizer makes no token of an empty text; leave empty texts out")
        try:
            states = self._session.run([self._output], {name: fed[name] for name in self._inputs})[0]
        except Exception as error:  # onnxruntime has its own classes
            raise ModelError(f"{self._place}: the graph fails: {reason_of(error)}") from None
        states = np.asarray(states, dtype=np.float32)
        wanted = (len(encoded),) if self._pooling is None else (len(encoded), longest)
        if states.shape[:-1] != wanted:
            raise ModelError(f"{self._place}: {self._output} is {list(states.shape)} for {list(wanted)} inputs")
        if self._pooling is None:
            return states
        if self._pooling == "cls":
            return np.ascontiguousarray(states[:, 0])
        mask = fed["attention_mask"]
        if self._pooling == "last":
            return np.ascontiguousarray(states[np.arange(len(encoded)), mask.sum(axis=1) - 1])
        share = mask[:, :, None].astype(np.float32)
        return np.asarray((states * share).sum(axis=1) / share.sum(axis=1), dtype=np.float32)

    def _chosen(self, file: Path) -> str:
        """Return the output that the pooling fits: by its name, or the only one of its rank."""
        outputs = {entry.name: len(entry.shape or ()) for entry in self._session.get_outputs()}
        rank, names = (2, _VECTORS) if self._pooling is None else (3, _TOKENS)
        fitting = [name for name, found in outputs.items() if found == rank]
        named = [name for name in names if name in fitting]
        if not named and len(fitting) != 1:
            what = (
                "one vector per text; say teacher.pooling" if rank == 2 else "one vector per token; leave out pooling"
            )
            listed = ", ".join(f"{name} of {found} axes" for name, found in outputs.items())
            raise ModelError(f"{file}: it has {len(fitting)} outputs with {what} (outputs: {listed})")
        return named[0] if named else fitting[0]


def _graph(folder: Path, name: str | None) -> Path:
    if name is not None:
        try:
            file = inside(folder, name)
        except RecordError as error:
            raise RecipeError(f"teacher.file: {error}") from None
        if not file.is_file():
            raise ModelError(f"{file}: no such file; teacher.file is the graph's path in {folder}")
        return file
    found = next((folder / file for file in FILES if (folder / file).is_file()), None)
    if found is None:
        raise ModelError(f"{folder} has neither {' nor '.join(FILES)}; name the graph by teacher.file")
    return found


def _opened(file: Path) -> Any:
    try:
        return session(file, threads=usable_cores())
    except Exception as error:  # onnxruntime has its own classes
        raise ModelError(f"{file}: onnxruntime cannot open it: {reason_of(error)}") from None


def _hash(file: Path) -> str:
    """Return the sha256 of a graph, or that of the hashes of the graph and the data files beside it."""
    data = sorted(path for path in file.parent.glob(f"{file.name}*") if path != file and "data" in path.suffix)
    if not data:
        return sha256(file)
    lines = "".join(f"{path.name} {sha256(path)}\n" for path in (file, *data))
    return hashlib.sha256(lines.encode()).hexdigest()


def load(spec: TeacherSpec) -> OnnxTeacher:
    """Open a recipe's graph."""
    return OnnxTeacher(spec)
