"""An endpoint as a teacher: batches at the same time, the bill before and during, and probes for drift."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import DriftError, ModelError, RecipeError
from edgeleaf.files import write_npy
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.teachers import TeacherSpec
from edgeleaf.teachers.base import Rendered
from edgeleaf.teachers.http.client import Client

PROBES = ("A river flows past the city.", "how to return a parcel", "Die Katze schläft auf dem Sofa.")
PROBED = "probes.npy"
ALLOWED = "EDGELEAF_TEACHER_URL"
"""The environment variable that allows a bundle, which somebody else may have made, to send texts to its address."""


class HttpTeacher:
    """A model behind an endpoint.

    Args:
        spec: ``teacher.http``, the model's name there, prompts, and the width if it is not the model's own.

    Raises:
        RecipeError: no ``[teacher.http]``, a revision, which an endpoint does not have, or what :class:`Client` raises.
        ModelError: the endpoint cannot be reached, or does not give vectors.
    """

    precision = ""
    device = "http"
    folder = None

    def __init__(self, spec: TeacherSpec) -> None:
        if spec.http is None:
            raise RecipeError('teacher.kind is "http", and [teacher.http] is missing: url and api are needed')
        if spec.revision is not None:
            raise RecipeError(
                "teacher.revision is not for an endpoint, which has none: name the version in teacher.model"
            )
        self._http, self._prompts = spec.http, {"query": spec.query_prompt, "document": spec.document_prompt}
        self.max_length = spec.max_length
        self.batch_size = spec.http.batch_size * spec.http.concurrency
        self._client = Client(spec.http, model=spec.model, dims=spec.dims)
        self._dim: int | None = None
        self._before = self._probes()
        self._dim = self._before.shape[1]
        named = hashlib.sha256(f"{spec.http.api}\n{spec.model}".encode()).hexdigest()
        self.space = VectorSpace(
            teacher=spec.model,
            revision=None,
            weights_sha256=named,
            pooling="none",
            normalized=True,
            query_prompt=spec.query_prompt,
            document_prompt=spec.document_prompt,
            dim=self._dim,
        )

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Send texts in batches, several at the same time; see :class:`edgeleaf.teachers.base.Teacher`.

        Raises:
            ModelError: a request failed for good; no further one is sent.
        """
        whole = [self._prompts[kind] + text for text in texts]
        size = self._http.batch_size
        batches = [whole[start : start + size] for start in range(0, len(whole), size)]
        if not batches:
            return np.empty((0, self.space.dim), dtype=np.float32)
        pool = ThreadPoolExecutor(self._http.concurrency)
        try:
            found = list(pool.map(lambda batch: self._client.vectors(batch, kind=kind, dim=self._dim), batches))
        finally:
            pool.shutdown(cancel_futures=True)
        return np.concatenate(found)

    def rendered(self, text: str, *, kind: Kind) -> Rendered:
        """Return a text with its prompt; the endpoint makes its tokens."""
        return Rendered(self._prompts[kind] + text)

    def lengths(self, texts: Sequence[str], *, kind: Kind) -> None:
        """Return None: the endpoint counts tokens."""
        return

    def widened(self, *, at_least: int) -> None:
        """Return None: the window is the endpoint's."""
        return

    @contextmanager
    def watched(self, folder: Path, *, texts: int, characters: int) -> Iterator[None]:
        """Say the bill before and after, and check that the same texts have the same vectors before and after.

        Args:
            folder: the cache's folder of this space, where the first run's probes are kept for later ones.
            texts, characters: what is going to be sent.

        Raises:
            DriftError: the endpoint's vectors have changed, since the folder was begun or while it was filled.
        """
        estimate = self._client.bill.estimate(texts=texts, characters=characters, batch_size=self._http.batch_size)
        progress.say(f"{self._client.host}: {estimate}")
        kept = folder / PROBED
        if kept.is_file():
            first = np.load(kept, allow_pickle=False)
            self._compare(first, self._probes(), f"since {folder} was begun: delete it, and index and bundle with it")
        else:
            write_npy(kept, self._before)
            first = self._before
        try:
            yield
            self._compare(first, self._probes(), "during this run, whose vectors are dropped: run again")
        finally:
            progress.say(f"{self._client.host}: {self._client.bill}")

    def _probes(self) -> npt.NDArray[np.float32]:
        return self._client.vectors(PROBES, kind="document", dim=self._dim)

    def _compare(self, before: npt.NDArray[np.float32], after: npt.NDArray[np.float32], when: str) -> None:
        same = before.shape == after.shape
        cosine = float((before * after).sum(axis=1).min()) if same else 0.0
        if cosine < 1 - self._http.drift:
            raise DriftError(
                f"{self.space.teacher} at {self._client.host} gives other vectors for the same texts (cosine "
                f"{cosine:.4f}, {1 - self._http.drift:g} is needed) {when}"
            )


def load(spec: TeacherSpec) -> HttpTeacher:
    """Open a recipe's endpoint."""
    return HttpTeacher(spec)


def check_allowed(spec: TeacherSpec) -> None:
    """Check that the user lets a bundle's teacher be asked: texts go to an address that the bundle says, with a key.

    Raises:
        ModelError: ``$EDGELEAF_TEACHER_URL`` is not that address.
    """
    if spec.http is not None and os.environ.get(ALLOWED) != spec.http.url:
        key = f", with the key in ${spec.http.key}" if spec.http.key else ""
        raise ModelError(
            f"the bundle's teacher {spec.model} is at {spec.http.url}: texts would be sent there{key}; "
            f"allow it with {ALLOWED}={spec.http.url}"
        )
