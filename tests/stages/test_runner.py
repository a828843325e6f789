"""Stages: done once for the same inputs, resumed when killed, made again when an input changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeleaf.errors import BundleError
from edgeleaf.stages.runner import Stages


def write(count: list[str], name: str):
    def make(folder: Path) -> None:
        count.append(name)
        (folder / "out.txt").write_text(name)

    return make


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    ran: list[str] = []
    for _ in range(2):
        folder = Stages(tmp_path).run("a", {"x": 1}, write(ran, "a"))
    assert ran == ["a"]
    assert (folder / "out.txt").read_text() == "a"


def test_force_runs_it_again(tmp_path: Path) -> None:
    ran: list[str] = []
    Stages(tmp_path).run("a", {"x": 1}, write(ran, "a"))
    with Stages(tmp_path, force=True) as stages:
        stages.run("a", {"x": 1}, write(ran, "a"))
    assert ran == ["a", "a"]


def test_a_run_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model"), Stages(tmp_path / "work"):
        raise ValueError("no model")
    assert not list(tmp_path.iterdir())


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Stages(tmp_path), pytest.raises(BundleError, match="another run is at work there"), Stages(tmp_path):
        pass
    with Stages(tmp_path):
        pass


def test_a_changed_input_runs_it_and_what_follows(tmp_path: Path) -> None:
    ran: list[str] = []
    for x in (1, 1, 2):
        stages = Stages(tmp_path)
        a = stages.run("a", {"x": x}, write(ran, "a"))
        stages.run("b", {"a": a}, write(ran, "b"))
    assert ran == ["a", "b", "a", "b"]


def test_a_killed_stage_finds_what_it_left(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).run("a", {"x": 1}, killed)
    assert not (tmp_path / "a").exists()

    seen: list[bool] = []
    Stages(tmp_path).run("a", {"x": 1}, lambda folder: seen.append((folder / "half.txt").exists()))
    assert seen == [True]


def test_a_killed_stage_of_other_inputs_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "half.txt").write_text("half")
    seen: list[bool] = []
    Stages(tmp_path).run("a", {"x": 2}, lambda folder: seen.append((folder / "half.txt").exists()))
    assert seen == [False]
