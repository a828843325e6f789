"""The command line. The result goes to standard output, progress to standard error.

Exit codes: 0 done, 1 a gate failed, 2 bad input or any other failure, 130 stopped by Ctrl-C. A failure is one line.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from edgeleaf import progress
from edgeleaf.cli.build import (
    adapt_command,
    distill_command,
    export_command,
    fuse_command,
    push_command,
    run_command,
    ship_command,
)
from edgeleaf.cli.doctor import doctor_command
from edgeleaf.cli.measure import bench_command, check_command
from edgeleaf.cli.options import echo
from edgeleaf.cli.serve import serve_command
from edgeleaf.cli.teach import teach_command
from edgeleaf.cli.use import encode_command, index_command, info_command, search_command, tokenize_command
from edgeleaf.cli.vectors import vectors_command
from edgeleaf.distributed.team import follows
from edgeleaf.errors import EdgeleafError, reason_of
from edgeleaf.extras import missing_line
from edgeleaf.version import __version__

TRACEBACK = "EDGELEAF_TRACEBACK"

app = typer.Typer(
    name="edgeleaf",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # in rich's own markup, [n, dim] in a help text would be a style
    help="Text goes in, a vector in the teacher's space comes out: one certified ONNX file.",
    epilog="Exit codes: 0 done, 1 a gate failed, 2 any other failure, reported in one line on standard error.",
)
COMMANDS = (
    run_command,
    adapt_command,
    teach_command,
    distill_command,
    vectors_command,
    export_command,
    check_command,
    bench_command,
    fuse_command,
    tokenize_command,
    encode_command,
    index_command,
    search_command,
    serve_command,
    ship_command,
    push_command,
    info_command,
    doctor_command,
)


class _Carried(Exception):
    """An end-of-file or operating system error, wrapped so that click does not treat it as its own."""


def _carried(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def carried(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (EOFError, OSError) as error:
            raise _Carried from error

    return carried


for command in COMMANDS:
    app.command(command.__name__.removesuffix("_command"))(_carried(command))


_traceback = False


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    traceback: Annotated[
        bool,
        typer.Option(
            "--traceback",
            envvar=TRACEBACK,
            help="Show where in the code an error arose, before the line that reports it.",
        ),
    ] = False,
) -> None:
    global _traceback
    _traceback = traceback
    if version:
        echo(f"edgeleaf {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stderr.write(context.get_help() + "\n")
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; every failure is one line on standard error.

    Raises:
        SystemExit: with the exit code, unless that is 0.
    """
    global _traceback
    _traceback = False
    if follows():  # of several processes, the main one alone speaks
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    else:
        progress.show()
    signal.signal(signal.SIGINT, _stop)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = app(prog_name="edgeleaf", standalone_mode=False)
    except _Stopped:
        sys.stderr.write(
            "edgeleaf: stopped; run, adapt, teach, distill and export continue from here when you repeat the command\n"
        )
        sys.exit(130)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, _Carried) and error.__cause__ else error
        with suppress(BrokenPipeError):  # nobody reads standard error any longer
            if _traceback:
                traceback.print_exception(cause)
            sys.stderr.write(f"{_line(cause)}\n")
            sys.stderr.flush()
        sys.exit(cause.exit_code if isinstance(cause, EdgeleafError) else 2)
    if status:
        sys.exit(status)


def _line(error: BaseException) -> str:
    """Return the one line that reports an error; for a command without arguments, the command's help."""
    if isinstance(error, EdgeleafError):
        return f"edgeleaf: {error}"
    if hasattr(error, "format_message"):  # of click, which some releases of typer carry inside
        return _usage(error)
    if isinstance(error, OSError):
        return f"edgeleaf: {reason_of(error)}"
    if isinstance(error, MemoryError):
        return f"edgeleaf: out of memory: {reason_of(error)}".removesuffix(": ")
    if isinstance(error, ImportError) and (missing := missing_line(error)):
        return f"edgeleaf: {missing}"
    what = f"{type(error).__name__}: {reason_of(error)}".removesuffix(": ")
    return (
        f"edgeleaf: this is a fault in edgeleaf, not in your input: {what} ({_place(error)}); "
        f"please report it with the traceback, which {TRACEBACK}=1 shows"
    )


def _usage(error: Any) -> str:
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    command = error.ctx.command_path if getattr(error, "ctx", None) else "edgeleaf"
    return f"edgeleaf: {reason_of(error.format_message(), limit=400).rstrip('.')}; see: {command} --help"


def _place(error: BaseException) -> str:
    """Return where in edgeleaf an error arose: the innermost of edgeleaf's own lines in the traceback."""
    root = Path(__file__).resolve().parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(root)]
    return f"{Path(own[-1].filename).resolve().relative_to(root.parent)}:{own[-1].lineno}" if own else "command line"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    progress.say(f"edgeleaf: warning: {' '.join(str(message).split())}")


class _Stopped(BaseException):
    """Ctrl-C, as a class that neither click nor a library catches."""


def _stop(*_: object) -> None:
    raise _Stopped
