"""Stages meet on disk: a function that fills a folder, run once for the same inputs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from edgeleaf import progress
from edgeleaf.errors import BundleError
from edgeleaf.files import write_json

STAGE = "stage.json"
LOCK = ".lock"


class Stages:
    """The stages of one run.

    Args:
        work: the folder that holds a folder a stage.
        force: run every stage again, whatever is there.

    Use it in a ``with`` statement: one run at a time works in a folder.

    Raises:
        BundleError: from ``with``, when another run is at work there.
    """

    def __init__(self, work: Path, *, force: bool = False) -> None:
        self.work = work
        self._force = force
        self._digests: dict[Path, str] = {}
        self._lock: Any = None

    def __enter__(self) -> Stages:
        from filelock import FileLock, Timeout

        self.work.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.work / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BundleError(f"{self.work}: another run is at work there; wait for it to end") from None
        if self._force:
            for folder in self.work.iterdir():
                shutil.rmtree(folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        lock = self.work / LOCK
        if [path.name for path in self.work.iterdir()] == [LOCK]:  # nothing came of it
            lock.unlink(missing_ok=True)
            self.work.rmdir()
        self._lock.release()

    def run(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], object]) -> Path:
        """Return the folder of stage ``name``, made by ``make(folder)`` unless it is there for the same inputs.

        Args:
            name: the stage's name, and its folder's.
            inputs: everything that changes the result: numbers, strings, dataclasses, and folders of earlier stages,
                which stand for the inputs that made them.
            make: fills the folder; must cope with what its own killed predecessor left in it.
        """
        digest = self._digest(name, inputs)
        folder, partial = self.work / name, self.work / f"{name}.partial"
        self._digests[folder] = digest
        if _made_from(folder) == digest:
            progress.say(f"{name}: done before")
            return folder
        if _made_from(partial) != digest:
            shutil.rmtree(partial, ignore_errors=True)
        write_json(partial / STAGE, {"stage": name, "inputs": digest})
        make(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
        return folder

    def _digest(self, name: str, inputs: Mapping[str, Any]) -> str:
        def plain(value: Any) -> Any:
            if isinstance(value, Path):
                return self._digests[value]
            return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value

        from edgeleaf.version import __version__

        values = {key: plain(value) for key, value in inputs.items()}
        text = json.dumps([__version__, name, values], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _made_from(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / STAGE).read_text(encoding="utf-8"))["inputs"])
    except (OSError, ValueError, KeyError):
        return None
