"""A store's open connections: each is used by one thread at a time, and kept for the next one. Needs only Python."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from edgeleaf.errors import EdgeleafError

Held = TypeVar("Held")


class Connections(Generic[Held]):
    """Connections that are opened when all others are in use; so there are as many as threads have asked at once.

    Args:
        opening: opens one.
        closing: closes one.
        usable: whether one that was used before is still good; one that is not is closed.
    """

    def __init__(
        self,
        opening: Callable[[], Held],
        closing: Callable[[Held], object],
        usable: Callable[[Held], bool] = lambda _: True,
    ) -> None:
        self._opening = opening
        self._closing = closing
        self._usable = usable
        self._lock = threading.Lock()
        self._free: list[Held] = []
        self._round = 0
        """How often :meth:`close` was called; a connection of an earlier round is closed when it comes back."""

    @contextmanager
    def one(self) -> Iterator[Held]:
        """Lend a connection. After an error that is none of ours it is closed, because its state is not known."""
        held, of = self._taken()
        try:
            yield held
        except EdgeleafError:
            self._give_back(held, of)
            raise
        except BaseException:
            self._closing(held)
            raise
        self._give_back(held, of)

    def close(self) -> None:
        """Close all connections, whichever thread opened them: those in use as soon as they come back."""
        with self._lock:
            free, self._free = self._free, []
            self._round += 1
        for held in free:
            self._closing(held)

    def _taken(self) -> tuple[Held, int]:
        while True:
            with self._lock:
                of, held = self._round, self._free.pop() if self._free else None
            if held is None:
                return self._opening(), of
            if self._usable(held):
                return held, of
            self._closing(held)

    def _give_back(self, held: Held, of: int) -> None:
        with self._lock:
            if of == self._round:
                self._free.append(held)
                return
        self._closing(held)
