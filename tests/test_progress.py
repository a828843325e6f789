"""Progress: silent in a library, lines without a terminal, a bar on one."""

from __future__ import annotations

import sys
import warnings

import pytest

from edgeleaf import progress
from edgeleaf.errors import EdgeleafWarning


def work() -> None:
    with progress.bar("knit", 3) as advance:
        progress.say("hello [b]")
        for _ in range(3):
            advance(1)


def test_silent_until_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_shown", False)  # another test may have shown it in this process
    work()
    assert capsys.readouterr() == ("", "")


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_shown", True)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    work()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hello [b]\nknit: 1 of 3, ")
    assert err.splitlines()[-1].startswith("knit: 3 done in ")


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_shown", True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    work()
    err = capsys.readouterr().err
    assert "hello [b]" in err
    assert "knit" in err
    assert "3/3" in err
    assert progress._live is None


def test_a_library_logs_and_warns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "_shown", False)
    with caplog.at_level("INFO", logger="edgeleaf"):
        progress.say("read 10 texts")
        with pytest.warns(EdgeleafWarning, match="^5 texts are cut$"):
            progress.warn("5 texts are cut")
    assert [record.getMessage() for record in caplog.records] == ["read 10 texts", "5 texts are cut"]


def test_the_command_line_prints_a_warning_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_shown", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        progress.warn("5 texts are cut")
    assert capsys.readouterr() == ("", "5 texts are cut\n")
