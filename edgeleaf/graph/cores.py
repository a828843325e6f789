"""Work on every processor core, results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_order(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """Yield ``work(item)`` for each item, in their order, a few of them ahead: one at a time on each core.

    For work that spends its time outside Python, such as sessions of one thread: on short texts a second thread of
    one session mostly waits for the first, while a second session works.

    Args:
        work: is called in threads, with several items at a time.
        items: taken as they are needed, so that results that nobody has asked for yet are few.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        running: deque[Future[Found]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > 2 * cores:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
