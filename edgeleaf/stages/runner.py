"""Runs stages. A stage is a function that fills a folder; it runs once for the same inputs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from edgeleaf import progress
from edgeleaf.distributed.team import Team
from edgeleaf.files import write_json
from edgeleaf.stages.code import Sources
from edgeleaf.stages.lock import LOCK as LOCK
from edgeleaf.stages.lock import locked

ALONE = Team()
STAGE = "stage.json"
VECTOR_CACHE = "vector-cache"
"""The folder of teacher vectors, beside the folders of stages."""


class Stages:
    """The stages of one run.

    A stage is done if its folder records the same inputs and the same code: the functions that make it with all of
    edgeleaf that they import, and the versions of the packages that these import.

    Args:
        work: the folder that contains one folder per stage.
        force: run every stage again, even if it is done. The cache of teacher vectors stays: its entries are found by
            vector space, window and text, so none can be out of date.
        team: the processes of this run. All of them go through the same stages; the main process alone locks, makes
            and writes, except for a stage that they make together.

    Use it in a ``with`` statement: one run at a time works in a folder.

    Raises:
        BundleError: from ``with``, when another run is at work there.
    """

    def __init__(self, work: Path, *, force: bool = False, team: Team = ALONE) -> None:
        self.work = work
        self.team = team
        self._force = force
        self._digests: dict[Path, str] = {}
        self._sources = Sources()
        self._lock = ExitStack()

    def __enter__(self) -> Stages:
        if self.team.main:
            self._lock.enter_context(locked(self.work))
            if self._force:
                for path in self.work.iterdir():
                    if path.is_dir() and path.name != VECTOR_CACHE:
                        shutil.rmtree(path)
        self.team.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def run(
        self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], object], *, together: bool = False
    ) -> Path:
        """Return the folder of stage ``name``; call ``make(folder)`` to fill it, unless it is done for the same inputs.

        Args:
            name: the name of the stage and of its folder.
            inputs: everything that changes the result: numbers, strings, dataclasses, and folders of earlier stages,
                for which the inputs that made them count.
            make: fills the folder; it must accept what a killed run left there. For a lambda or an inner function, the
                functions that it calls by name and the objects that it refers to count.
            together: call ``make`` in every process of the team, not in the main process alone.
        """
        digest = self._digest(name, inputs, make)
        folder, partial = self.work / name, self.work / f"{name}.partial"
        self._digests[folder] = digest
        if self.team.agree_on(lambda: _made_from(folder) == digest):
            progress.say(f"{name}: done before")
            return folder
        if self.team.main:
            if _made_from(partial) != digest:
                shutil.rmtree(partial, ignore_errors=True)
            write_json(partial / STAGE, {"stage": name, "inputs": digest})
        self.team.wait()
        if self.team.main or together:
            make(partial)
        self.team.wait()
        if self.team.main:
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        self.team.wait()
        return folder

    def _digest(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], object]) -> str:
        def plain(value: Any) -> Any:
            if isinstance(value, Path):
                return self._digests[value]
            return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value

        values = {key: plain(value) for key, value in inputs.items()}
        text = json.dumps([name, values, self._sources.digest(make)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _made_from(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / STAGE).read_text(encoding="utf-8"))["inputs"])
    except (OSError, ValueError, KeyError):
        return None
