"""python -m edgeleaf.emulation: run a Python command on an emulated processor."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from edgeleaf import progress
from edgeleaf.emulation.guest import cache
from edgeleaf.emulation.processors import PROCESSORS, missing, prepare
from edgeleaf.errors import EdgeleafError, fault_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run Python on a processor, or set up emulation; return the exit status, 128 + N for signal N, 2 for bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m edgeleaf.emulation", usage="%(prog)s [--setup] PROCESSOR -- ARGUMENTS of Python"
    )
    parser.add_argument("processor", nargs="?", help=f"{', '.join(PROCESSORS)}; with --setup alone: all of them")
    parser.add_argument("--setup", action="store_true", help="fetch what is missing and print its folder")
    parser.add_argument("--missing", action="store_true", help="print what --setup would fetch, and fetch nothing")
    options = parser.parse_args(arguments[:split])
    if not options.processor and not (options.setup or options.missing):
        parser.error(f"name a processor: {', '.join(PROCESSORS)}")
    wanted = [options.processor] if options.processor else list(PROCESSORS)
    progress.show()
    try:
        if options.missing:
            sys.stdout.write("".join(f"{line}\n" for line in missing(wanted)))
            return 0
        emulation = prepare(wanted)
        if options.setup:
            sys.stdout.write(f"{', '.join(wanted)}: set up in {cache()}\n")
            return 0
        status = subprocess.call(emulation.command(options.processor, arguments[split + 1 :]))
        return status if status >= 0 else 128 - status
    except EdgeleafError as error:
        sys.stderr.write(f"edgeleaf: {error}\n")
        return error.exit_code
    except Exception as error:
        sys.stderr.write(f"{fault_line(error)}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
