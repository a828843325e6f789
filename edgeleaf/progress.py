"""Progress on standard error: bars on a terminal, occasional lines elsewhere.

The command line calls :func:`show` once; every stage asks for a :func:`bar`, whether or not anybody watches. In a
program that uses edgeleaf as a library, every line goes to the logger ``edgeleaf``, and important ones are warnings,
too.
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
    """Show progress from now on, and make all output UTF-8. Only the command line calls this.

    Texts come in every script, and redirected output would otherwise be in the system's code page. What no encoding can
    express, such as odd bytes in a file name, is escaped.
    """
    global _shown
    _shown = True
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def warn(message: str) -> None:
    """Report what was cut, chosen or dropped. In a library this is an EdgeleafWarning."""
    say(message)
    if not _shown:
        warnings.warn(message, EdgeleafWarning, stacklevel=3)


def say(message: str) -> None:
    """Log one line; if progress is shown, also print it to standard error, above the bar if there is one."""
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
        ``advance(n)``: report that ``n`` further units are done.
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
