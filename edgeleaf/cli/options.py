"""Options that several commands share, and how commands read texts and print results."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeleaf.errors import TextsError

Output = Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")]
Report = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write a report into this new folder. Default: print only.")
]
FROM_STDIN = "if none or -, standard input is read, one per line, blank lines included."
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Force = Annotated[bool, typer.Option("--force", help="Run every stage again, even if it is already done.")]
Bundle = Annotated[Path, typer.Argument(help="A bundle folder.")]
TextFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--texts", help="File of queries to check with: .txt, .tsv or .jsonl, gzipped or not. May be repeated."
    ),
]


Processors = Annotated[
    str,
    typer.Option(
        help="Processors to emulate and compare with this one, separated by commas: x86-64-v3,armv8.0, ... or all. "
        "python -m edgeleaf.emulation --setup fetches the emulators."
    ),
]


def processor_names(processors: str) -> tuple[str, ...]:
    """Return the processors named in ``a,b``, or for ``all`` every one that can be emulated."""
    from edgeleaf.emulation.processors import PROCESSORS

    return tuple(PROCESSORS) if processors == "all" else tuple(filter(None, map(str.strip, processors.split(","))))


def given_texts(texts: list[str] | None) -> list[str]:
    """Return the texts of the command line, or those of standard input, one per line."""
    if texts and texts != ["-"]:
        try:
            return [os.fsencode(text).decode() for text in texts]  # bytes that the locale could not read
        except UnicodeError:
            raise TextsError("a text on the command line is not UTF-8; pipe it in as UTF-8") from None
    data = b"" if sys.stdin.isatty() and not texts else sys.stdin.buffer.read()
    if not data:
        raise TextsError("no text given; name texts, or pipe them in, one per line")
    try:
        lines = data.decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise TextsError(f"standard input is not UTF-8 at byte {error.start}") from None
    return [line.removesuffix("\r") for line in lines]


def print_table(renderable: Any) -> None:
    """Print a table as one text, because ``rich`` itself treats a reader that has gone away as an error."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 120)
    with console.capture() as captured:
        console.print(renderable)
    echo(captured.get().rstrip("\n"))


def print_json(value: Any) -> None:
    echo(json.dumps(value, indent=2, ensure_ascii=False))


def echo(text: str) -> None:
    """Print a line; a reader that has gone away, such as ``head``, is not an error."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
