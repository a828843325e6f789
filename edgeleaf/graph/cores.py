"""Run work on every processor core and return the results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_order(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """Yield ``work(item)`` for each item, in the order of the items, with one item at a time on each core.

    Meant for work that spends its time outside Python, such as onnxruntime sessions of one thread each. On short texts,
    a second thread in the same session mostly waits for the first, while a second session does useful work.

    Args:
        work: called from several threads at once, each with one item.
        items: read only as they are needed, so that only a few results wait to be used.
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
