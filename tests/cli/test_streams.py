"""Standard streams: UTF-8 with any system code page, one line end stripped per line, all other bytes unchanged."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeleaf.cli.options import given_texts
from edgeleaf.errors import TextsError

ROOT = Path(__file__).parents[2]
TEXT = "Zürich 東京 🙂 \u2028 ж"
LEGACY = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
SPEAK = f"""
from edgeleaf import progress
from edgeleaf.cli.options import echo, given_texts, print_json, print_table
progress.show()
progress.say({TEXT!a})
with progress.bar({TEXT!a}, 1) as advance:
    advance(1)
echo(given_texts(["-"])[0])
print_json({{"text": {TEXT!a}}})
from rich.table import Table
table = Table({TEXT!a})
print_table(table)
echo("odd \\udcff")
"""


def run(arguments: list[str], *, environment: dict[str, str], given: bytes = b"") -> tuple[str, str, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        input=given,
        capture_output=True,
        env={**kept, **environment},
        cwd=ROOT,
        check=False,
    )
    return done.stdout.decode(), done.stderr.decode(), done.returncode


@pytest.mark.parametrize("environment", LEGACY.values(), ids=LEGACY)
def test_output_is_utf8_whatever_the_code_page(environment: dict[str, str]) -> None:
    out, err, code = run(["-c", SPEAK], environment=environment, given=f"{TEXT}\r\n".encode())
    assert code == 0, err
    lines = out.split("\n")
    assert (
        lines[0] == TEXT and f'  "text": "{TEXT}"' in lines and "Zürich 東京" in lines[5] and lines[-2] == "odd \\udcff"
    )
    assert err.startswith(f"{TEXT}\n{TEXT}: 1 done in ")


@pytest.mark.parametrize("environment", LEGACY.values(), ids=LEGACY)
def test_an_error_names_a_file_of_any_script(environment: dict[str, str]) -> None:
    out, err, code = run(["-m", "edgeleaf.cli", "run", "東京.toml", "-o", "out"], environment=environment)
    assert (out, code) == ("", 2)
    assert "東京.toml: no such recipe" in err or "\\udce6\\udc9d" in err  # an ASCII locale reads it as bytes


class Pipe:
    """Standard input."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\r\r\n\r\n two ", ["one\r", "", " two "]),
        ("\ufeffone\ntwo\u2028three\x85four".encode(), ["one", "two\u2028three\x85four"]),
        (b"a\rb\n", ["a\rb"]),
    ],
)
def test_one_line_end_is_stripped(data: bytes, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(data))
    assert given_texts(None) == given_texts_again(data, monkeypatch) == texts


def given_texts_again(data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sys, "stdin", Pipe(data))
    return given_texts(["-"])


def test_arguments_that_the_locale_could_not_read_are_utf8() -> None:
    assert given_texts([os.fsdecode("Zürich".encode()), "東京"]) == ["Zürich", "東京"]
    with pytest.raises(TextsError, match="a text on the command line is not UTF-8"):
        given_texts([os.fsdecode(b"Z\xfcrich")])
