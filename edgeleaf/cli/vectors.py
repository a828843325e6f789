"""The command that shows what a recipe's teacher gives, before anything is trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeleaf.cli.options import AsJson, echo, print_json

if TYPE_CHECKING:
    from edgeleaf.pipeline.vectors import Written

TOKENS_SHOWN = 64


def vectors_command(
    recipe: Annotated[Path, typer.Argument(help="A recipe; its [teacher] is used.")],
    texts: Annotated[Path, typer.Argument(help="A .txt file, one text per line; may be gzipped.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .npy file to write; row n is line n.")],
    role: Annotated[str, typer.Option(help="What the texts are: query or document.")],
    as_json: AsJson = False,
) -> None:
    """Write the vectors of a recipe's teacher, to compare with your own code before you distil."""
    from edgeleaf.pipeline.vectors import vectors

    written = vectors(recipe, texts, output=output, role=role)
    print_json(summary(written)) if as_json else echo("\n".join(lines(written)))


def summary(written: Written) -> dict[str, Any]:
    """Return a result as JSON has it."""
    return {
        "output": str(written.output),
        "texts": written.texts,
        "role": written.role,
        "window": written.window,
        "longer": written.longer,
        "space": {"id": written.space.id, **written.space.record()},
        "around": {kind: asdict(around) for kind, around in written.around.items()},
        "sample": asdict(written.sample),
    }


def lines(written: Written) -> list[str]:
    """Return a result as lines: the file, what lies around a text of each role, the first text as it is read."""
    space, sample = written.space, written.sample
    longer = (
        "" if not written.longer else f", {written.longer} longer than the window of {written.window} tokens and cut"
    )
    found = [
        f"{written.output}: {written.texts} {written.role} vectors of {space.dim} numbers, space {space.id}{longer}"
    ]
    for kind, around in written.around.items():
        parts = {
            "examples": around.context,
            "prompt": around.prompt,
            "suffix": around.suffix,
            "first token": space.bos_token or "",
            "last token": space.eos_token or "",
        }
        said = ", ".join(f"{name} {text!r}" for name, text in parts.items() if text)
        found.append(f"around a {kind}: {said or 'nothing'}")
    found.append(f"line 1, as the teacher reads it: {sample.text!r}")
    if sample.tokens is None or sample.ids is None:
        return [*found, "its tokens are made by the endpoint"]
    shown = list(zip(sample.tokens, sample.ids, strict=True))
    if len(shown) > TOKENS_SHOWN:
        half = TOKENS_SHOWN // 2
        left, right = shown[:half], shown[-half:]
        tokens = f"{_tokens(left)} … {len(shown) - TOKENS_SHOWN} more … {_tokens(right)}"
    else:
        tokens = _tokens(shown)
    return [*found, f"its {len(shown)} tokens: {tokens}"]


def _tokens(pairs: list[tuple[str, int]]) -> str:
    return " ".join(f"{token}={number}" for token, number in pairs)
