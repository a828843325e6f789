"""``edgeleaf teach``: teaches a model on pairs, before it is a teacher or a student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgeleaf
from edgeleaf.cli.options import AsJson, Force, echo, print_json


def teach_command(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe with a table [teach], such as export/recipes/teach-scifact.toml.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the model.")],
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Teach a model on pairs of queries and texts that answer them; continues where a stopped run left off."""
    made = edgeleaf.teach(recipe, output=output, force=force)
    print_json({"folder": str(made.folder), **made.report}) if as_json else echo(str(made.folder))
