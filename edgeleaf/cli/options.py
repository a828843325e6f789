"""Options that several commands share, and how commands read texts and print results."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeleaf.errors import InputError, TextsError

if TYPE_CHECKING:
    from edgeleaf.distributed.engine import Cluster

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


Engine = Annotated[
    str,
    typer.Option(
        help="What encodes with the teacher: local (this process), or ray (workers on this machine, or on the cluster "
        "that RAY_ADDRESS names; needs edgeleaf[ray])."
    ),
]
Shards = Annotated[
    str | None,
    typer.Option(
        help="With ray: folder or URL that every worker can write to, for the shards. Default: beside the output."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With ray: how many teachers to load. Default: one per GPU, or else per processor."),
]
ShardTexts = Annotated[
    int | None,
    typer.Option(
        "--shard", min=1, help="With ray: texts per shard. Default: 128, or 65536 where this machine has a GPU."
    ),
]


def cluster_of(engine: str, shards: str | None, workers: int | None, shard: int | None) -> Cluster | None:
    """Return the cluster that options describe, None for this process.

    Raises:
        InputError: no such engine, or an option of Ray's without Ray.
    """
    if engine == "ray":
        from edgeleaf.distributed.engine import Cluster

        return Cluster(place=shards, workers=workers, shard=shard)
    if engine != "local":
        raise InputError(f"--engine is {engine!r}; local or ray is needed")
    given = {"--shards": shards, "--workers": workers, "--shard": shard}
    if named := [name for name, value in given.items() if value is not None]:
        raise InputError(f"{named[0]} is for a cluster; add --engine ray, or leave it out")
    return None


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
