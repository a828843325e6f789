"""edgeleaf.teachers.opening: kinds of teachers."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from edgeleaf.errors import RecipeError
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.teachers.opening import KINDS, TeacherKind, load_teacher


def test_a_kind_is_opened_by_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[TeacherSpec] = []
    module = ModuleType("mine")
    module.load = opened.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    monkeypatch.setattr("edgeleaf.teachers.opening.KINDS", {**KINDS, "mine": TeacherKind("mine")})
    spec = TeacherSpec("anything", kind="mine")
    load_teacher(spec)
    assert opened == [spec]
    assert TeacherSpec("anything").kind in KINDS


def test_no_such_kind() -> None:
    with pytest.raises(RecipeError, match="teacher.kind is .htp.; allowed: .sentence-transformers."):
        load_teacher(TeacherSpec("anything", kind="htp"))
