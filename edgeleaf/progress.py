"""Progress on standard error: bars on a terminal, a line now and then elsewhere.

The command line calls :func:`show` once; every stage asks for a :func:`bar` and never cares who watches. In a
program that uses edgeleaf as a library every line goes to the logger ``edgeleaf``, and what must not be missed is a
warning too.
"""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgeleaf.errors import EdgeleafWarning

logger = logging.getLogger("edgeleaf")
logger.addHandler(logging.NullHandler())
_shown = False
_live: Any = None
LINE_EVERY_S = 15.0


def show() -> None:
    """Make progress visible from here on, and all output UTF-8 (the command line's business).

    Texts come in every script, and redirected output would be in whatever code page the system has. What no encoding
    can say, such as a file name's odd bytes, is escaped.
    """
    global _shown
    _shown = True
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def warn(message: str) -> None:
    """Say what a user should know: what was cut, chosen or dropped. In a library it is an EdgeleafWarning."""
    say(message)
    if not _shown:
        warnings.warn(message, EdgeleafWarning, stacklevel=3)


def say(message: str) -> None:
    """Print one line to standard error, above the bar if there is one, when progress is shown; log it in any case."""
    logger.info(message)
    if not _shown:
        return
    if _live is not None:
        _live.console.print(message, markup=False, highlight=False)
        return
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


@contextmanager
def bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while ``total`` units of work pass.

    Yields:
        ``advance(n)``: say that ``n`` more units are done.
    """
    if not _shown:
        yield lambda n: None
        return
    if not sys.stderr.isatty():
        yield from _lines(description, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    global _live
    with Progress(*columns, console=Console(stderr=True)) as _live:
        progress, task = _live, _live.add_task(description, total=total)
        try:
            yield lambda n: progress.advance(task, n)
        finally:
            _live = None


def _lines(description: str, total: int) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= LINE_EVERY_S and done:
            last = now
            left = (total - done) * (now - start) / done
            say(f"{description}: {done:,} of {total:,}, {now - start:.0f} s gone, about {max(left, 0):.0f} s left")

    yield advance
    if done:
        say(f"{description}: {done:,} done in {time.monotonic() - start:.1f} s")
