"""Encodes shards over Ray Data: actors hold the teacher, Ray schedules and restarts them, the files are ours.

Ray's part is to hand names of shards to actors and to start an actor again that died. What is done is decided by the
files at a place (:mod:`edgeleaf.distributed.shards`), not by Ray, so any later run continues there, under Ray or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.distributed.cluster import SHARE, check_cluster, cluster
from edgeleaf.distributed.shards import (
    SIDECAR,
    TEXTS,
    TRIED,
    check_sidecar,
    read_shard,
    remove_shards,
    shard_name,
    texts_file,
    texts_of,
    write_shard,
)
from edgeleaf.errors import ClusterError, EdgeleafError, InputError, ModelError, PlaceError, reason_of
from edgeleaf.remote import Place
from edgeleaf.teachers.base import Encodes
from edgeleaf.teachers.cache import Part, cache_name, encode_texts
from edgeleaf.vectors import is_whole

MOST_BLOCKS = 8192
"""Blocks of Ray Data; with more shards than this, a block has several."""
TRIES = 4
"""How often a shard is tried whose worker dies. Ray would start workers for ever that a shard kills."""


@dataclass(frozen=True)
class Cluster:
    """What a user says about a run on Ray.

    Args:
        place: a folder or URL for the shards, which every worker can write to. Without one, they are beside the
            output until all of them have been fetched.
        workers: see :func:`edgeleaf.distributed.cluster.cluster`.
        shard: texts per shard: what a failure costs; None means as in one process.
        keep: whether the shards at ``place`` stay.
    """

    place: str | None = None
    workers: int | None = None
    shard: int | None = None
    keep: bool = True

    def __post_init__(self) -> None:
        for name in ("workers", "shard"):
            value = getattr(self, name)
            if value is not None and (not is_whole(value) or value < 1):
                raise InputError(f"{name} is {value!r}; a whole number from 1 is needed")

    def check(self) -> None:
        """Check, before any work, that ray is installed and that cluster and place answer.

        Raises:
            MissingExtra, ClusterError, PlaceError: they do not.
        """
        check_cluster()
        if self.place is not None:
            Place(self.place).names()


class RayEngine:
    """An :data:`edgeleaf.teachers.cache.Engine` on a cluster.

    Args:
        open_teacher: opens the driver's teacher on a worker; it is pickled.
        where: what the user said.
        beside: the place for the shards if the user named none.

    Raises:
        PlaceError, ClusterError, ModelError: from the iterator; shards that are whole by then are kept at the place.
    """

    def __init__(self, open_teacher: Callable[[], Encodes], where: Cluster, *, beside: str | Path) -> None:
        self._open = open_teacher
        self._place = where.place or str(beside)
        self._keep = where.keep and bool(where.place)
        self._workers = where.workers

    def __call__(
        self, teacher: Encodes, parts: Sequence[Part], advance: Callable[[int], None]
    ) -> Iterator[tuple[Part, npt.NDArray[Any]]]:
        """Yield whole shards first, then those that the cluster encodes, as they are done."""
        if not parts:
            return
        place = Place(self._place) / cache_name(teacher)
        by_name = {shard_name(part.keys): part for part in parts}
        there = place.names()
        whole = [name for name in by_name if name + SIDECAR in there]
        for name in whole:
            check_sidecar(place, name, teacher, len(by_name[name].keys))
        tasks = [_task(place, name, part) for name, part in by_name.items() if name + SIDECAR not in there]
        progress.say(f"shards at {place.shown}: {len(whole):,} whole, {len(tasks):,} to encode")
        for name in whole:
            yield by_name[name], read_shard(place, name, teacher, len(by_name[name].keys))
        if tasks:
            for name, characters in self._encoded(tasks, place):
                advance(characters)
                yield by_name[name], read_shard(place, name, teacher, len(by_name[name].keys))
        progress.say(f"shards: {len(whole):,} found whole, {len(tasks):,} encoded")
        remove_shards(place, list(by_name), keep=self._keep)

    def _encoded(self, tasks: list[dict[str, Any]], place: Place) -> Iterator[tuple[str, int]]:
        """Yield (name, characters) as shards are done.

        Raises:
            PlaceError, ModelError: the first failure of a shard, after all others have been tried.
            ClusterError: a worker died too often, or the cluster did.
        """
        failures: list[dict[str, Any]] = []
        with cluster(workers=self._workers) as (ray, workers, on_gpu):
            size = min(workers, len(tasks))
            progress.say(f"Ray: {size} workers, each with the teacher{' on a GPU' if on_gpu else ''}")
            rows = ray.data.from_items(tasks, override_num_blocks=min(len(tasks), MOST_BLOCKS)).map_batches(
                Worker,
                fn_constructor_kwargs={"open_teacher": self._open, "place": place.name},
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
                num_cpus=SHARE,
                num_gpus=1 if on_gpu else None,
            )
            try:
                for row in rows.iter_rows():
                    if row["error"]:
                        failures.append(row)
                    else:
                        yield str(row["name"]), int(row["characters"])
            except EdgeleafError:
                raise
            except ray.exceptions.RayError as error:
                raise ClusterError(
                    f"Ray gave up: {_last_line(error)}; whole shards are kept at {place.shown}, run again"
                ) from None
        if failures:
            first = next((row for row in failures if row["kind"] != SKIPPED), failures[0])
            kind = {"ModelError": ModelError, "PlaceError": PlaceError}.get(str(first["kind"]), ClusterError)
            raise kind(
                f"{first['error']}; {len(failures):,} of {len(tasks):,} shards are missing, the others are kept at "
                f"{place.shown}: run again when that is mended"
            )


SKIPPED = "skipped"
"""The kind of a failure that follows from an earlier one of the same worker."""


class Worker:
    """An actor of Ray Data: holds the teacher, and encodes one shard per call.

    Args:
        open_teacher: opens the teacher, when the first shard is there that is not whole yet.
        place: where the shards are.
    """

    def __init__(self, open_teacher: Callable[[], Encodes], place: str) -> None:
        self._open = open_teacher
        self._place = Place(place)
        self._teacher: Encodes | None = None
        self._failed = ""

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Encode shards; return for each its name, and the failure if there was one."""
        rows = zip(batch["name"], batch["sha256"], batch["characters"], strict=True)
        done = [self._one(str(name), str(sha256)) | {"characters": int(count)} for name, sha256, count in rows]
        return {key: [row[key] for row in done] for key in ("name", "characters", "error", "kind")}

    def _one(self, name: str, texts_sha256: str) -> dict[str, Any]:
        row: dict[str, Any] = {"name": name, "error": "", "kind": ""}
        if self._failed:  # a full disk or a missing model fails every shard: do not encode for nothing
            return row | {"error": self._failed, "kind": SKIPPED}
        try:
            if self._place.has(name + SIDECAR):  # the worker died after it was written, before Ray knew
                return row
            data = self._place.read(name + TEXTS)
            if hashlib.sha256(data).hexdigest() != texts_sha256:
                raise PlaceError(f"{self._place.shown}/{name}{TEXTS} is not what was written there; run again")
            before = self._tries(name)
            if before >= TRIES:  # this shard's fault alone: the worker goes on with others
                deadly = f"shard {name} has ended {before} workers, as too little memory would"
                return row | {"error": f"{deadly}; give Ray fewer --workers", "kind": ModelError.__name__}
            self._place.write(name + TRIED, str(before + 1).encode())  # before it can kill this process
            if self._teacher is None:
                self._teacher = self._open()
            write_shard(self._place, name, encode_texts(self._teacher, texts_of(data)), self._teacher, texts_sha256)
            return row
        except EdgeleafError as error:
            self._failed = str(error)
            return row | {"error": str(error), "kind": type(error).__name__}
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            self._failed = f"{type(error).__name__} in a worker: {reason_of(error)}"
            return row | {"error": self._failed, "kind": type(error).__name__}

    def _tries(self, name: str) -> int:
        """Return how many workers have tried a shard."""
        return int(self._place.read(name + TRIED)) if self._place.has(name + TRIED) else 0


def _task(place: Place, name: str, part: Part) -> dict[str, Any]:
    """Write the texts of a shard for the workers, and return the row of Ray Data that stands for it."""
    texts = part.read()
    data = texts_file(texts)
    place.write(name + TEXTS, data)
    place.remove(name + TRIED)
    characters = sum(len(text.text) for text in texts)
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "characters": characters}


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return reason_of(lines[-1] if lines else type(error).__name__)
