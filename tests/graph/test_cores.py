"""edgeleaf.graph.cores: results in the order of the items, only a few computed in advance, errors passed on."""

from __future__ import annotations

import itertools
import os
import threading
import time

import pytest

from edgeleaf.graph.cores import in_order


def test_results_come_in_order_however_long_each_takes() -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(in_order(work, range(40))) == [item * item for item in range(40)]
    assert list(in_order(work, [])) == []


def test_items_are_taken_as_results_are_asked_for() -> None:
    taken = itertools.count()
    results = in_order(lambda item: item, taken)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    results.close()
    assert next(taken) <= 5 + 2 * (os.cpu_count() or 1) + 1


def test_work_is_shared_out() -> None:
    both = threading.Barrier(2, timeout=20)
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    assert len(list(in_order(lambda _: both.wait(), range(2)))) == 2  # neither returns before the other has begun


def test_an_error_is_the_callers() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = in_order(work, range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
