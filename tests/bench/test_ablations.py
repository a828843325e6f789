"""The ablations' command line: every arm can be named, even one with commas, and a wrong name is refused."""

from __future__ import annotations

import pytest

from bench.studies import ablations


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["bench.studies.ablations", "work", "collection", "-o", "out", *arguments])
    ablations.main()


def test_every_arm_can_be_named_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no such arm: nonsense; there are: base, base, another seed"):
        run(monkeypatch, "--arm", "base, another seed", "--arm", "nonsense")
    with pytest.raises(SystemExit, match="'no definitions' needs --definitions FILE"):  # all names were taken
        run(monkeypatch, *(part for name in ablations.ARMS for part in ("--arm", name)))
    with pytest.raises(SystemExit, match="'no definitions' needs"):
        run(monkeypatch)  # all arms
