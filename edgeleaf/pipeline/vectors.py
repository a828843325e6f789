"""Writes what a recipe's teacher gives for a file of texts, before anything is trained."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from edgeleaf import progress
from edgeleaf.errors import InputError, TextsError
from edgeleaf.extras import require
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.recipe.sources import KINDS, Kind
from edgeleaf.teachers.around import Around, around_of
from edgeleaf.teachers.base import Watched
from edgeleaf.teachers.cache import encode_texts
from edgeleaf.teachers.opening import check_kind, load_teacher
from edgeleaf.texts.readers import numbered_lines, suffix_of
from edgeleaf.texts.text import Text

if TYPE_CHECKING:
    from edgeleaf.bundle.manifest import VectorSpace
    from edgeleaf.teachers.base import Rendered, Teacher

AT_A_TIME = 1024
"""Texts whose vectors are checked and written together."""


@dataclass(frozen=True)
class Written:
    """The result of :func:`vectors`.

    Args:
        output: the .npy file, float32 [texts, dim], unit L2 norm; row n is line n of the texts.
        texts: how many.
        space: their vector space.
        window: how many tokens the teacher reads of a text.
        longer: how many texts are longer than that; None if the teacher does not count tokens here.
        role: query or document.
        around: what is put around the texts of each kind.
        sample: the first text as the teacher reads it.
    """

    output: Path
    texts: int
    space: VectorSpace
    window: int
    longer: int | None
    role: Kind
    around: dict[Kind, Around]
    sample: Rendered


def vectors(recipe: str | Path, texts: str | Path, *, output: str | Path, role: str) -> Written:
    """Write a recipe's teacher's vectors of a file of texts.

    Args:
        recipe: path of a TOML recipe; its ``[teacher]`` is used.
        texts: a .txt file in UTF-8, one text per line, gzipped or not.
        output: a .npy file; replaced if it exists, and only when all vectors are there.
        role: ``query`` or ``document``.

    Raises:
        InputError: another role.
        RecipeError, ModelError: the recipe or its teacher cannot be used.
        TextsError: no text, a blank line, a file of another kind; or ``output`` does not end in .npy.
        DriftError: the teacher changed meanwhile; nothing is written.
    """
    target = Path(output)
    kind = next((known for known in KINDS if known == role), None)
    if kind is None:
        raise InputError(f"role is {role!r}; allowed: {', '.join(KINDS)}")
    if target.suffix != ".npy" or target.is_dir():
        raise TextsError(f"{output}: vectors are written as .npy; give a file's name that ends in it")
    spec = read_recipe(recipe).teacher
    check_kind(spec)
    lines = _lines(Path(texts))
    require("vectors")
    teacher = load_teacher(spec)
    lengths = teacher.lengths(lines, kind=kind)
    longer = None if lengths is None else sum(length > teacher.max_length for length in lengths)
    _write(target, teacher, lines, kind)
    sample = teacher.rendered(lines[0], kind=kind)
    return Written(target, len(lines), teacher.space, teacher.max_length, longer, kind, around_of(spec), sample)


def _lines(path: Path) -> list[str]:
    if suffix_of(path) != ".txt":
        raise TextsError(f"{path}: texts are read from .txt, one per line, gzipped or not")
    lines = []
    for number, line in numbered_lines(path):
        if not line.strip():
            raise TextsError(f"{path}, line {number}: blank; row n of the vectors is line n, so leave blank lines out")
        lines.append(line)
    if not lines:
        raise TextsError(f"{path}: no text in it")
    return lines


def _write(target: Path, teacher: Teacher, texts: list[str], kind: Kind) -> None:
    characters = sum(map(len, texts))
    target.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)))
        found = np.lib.format.open_memmap(folder / target.name, "w+", np.float32, (len(texts), teacher.space.dim))
        with ExitStack() as watch:
            if isinstance(teacher, Watched):
                watch.enter_context(teacher.watched(folder, texts=len(texts), characters=characters))
            advance = watch.enter_context(progress.bar("teacher vectors, characters", characters))
            for start in range(0, len(texts), AT_A_TIME):
                part = [Text(text, kind) for text in texts[start : start + AT_A_TIME]]
                found[start : start + len(part)] = encode_texts(teacher, part, advance)
        found.flush()
        del found
        (folder / target.name).replace(target)
