"""The command line. Standard output is the result, standard error the progress.

Exit codes: 0 done, 1 a gate failed, 2 bad input.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from edgeleaf import progress
from edgeleaf.cli.build import adapt_command, distill_command, export_command, fuse_command, run_command, ship_command
from edgeleaf.cli.measure import bench_command, check_command
from edgeleaf.cli.options import echo
from edgeleaf.cli.use import encode_command, index_command, info_command, search_command, tokenize_command
from edgeleaf.errors import EdgeleafError
from edgeleaf.version import __version__

app = typer.Typer(
    name="edgeleaf",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Text in, teacher-space vector out, in one certified ONNX file.",
)
COMMANDS = (
    run_command,
    adapt_command,
    distill_command,
    export_command,
    check_command,
    bench_command,
    fuse_command,
    tokenize_command,
    encode_command,
    index_command,
    search_command,
    ship_command,
    info_command,
)
for command in COMMANDS:
    app.command(command.__name__.removesuffix("_command"))(command)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        echo(f"edgeleaf {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; every error a user can cause is one line on standard error."""
    progress.show()
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except EdgeleafError as error:
        sys.stderr.write(f"edgeleaf: {error}\n")
        sys.exit(error.exit_code)
    except _Stopped:
        sys.stderr.write("edgeleaf: stopped; run, adapt, distill and export go on from here when given again\n")
        sys.exit(130)
    except OSError as error:
        sys.stderr.write(f"edgeleaf: {error}\n")
        sys.exit(2)


class _Stopped(BaseException):
    """Ctrl-C, under a name that neither click nor a library takes for its own."""


def _stop(*_: object) -> None:
    raise _Stopped
