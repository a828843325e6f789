"""Every failure of the command line prints one line and exits with 2; only a failed gate exits with 1.

Most tests run in this process, because that is quick.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import edgeleaf.cli
from edgeleaf.errors import BundleError, GateFailed, ProcessorWarning, reason_of
from tests.cli.test_main import edgeleaf as command

main = sys.modules["edgeleaf.cli.main"]
FAULT = "this is a fault in edgeleaf, not in your input"


def raises(error: BaseException, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """Run ``edgeleaf info none``, where reading the manifest raises ``error``; return the exit code."""
    from edgeleaf.bundle.manifest import Manifest

    def read(folder: Path) -> Manifest:
        raise error

    monkeypatch.setattr(Manifest, "read", read)
    monkeypatch.setattr(sys, "argv", ["edgeleaf", *options, "info", "none"])
    with pytest.raises(SystemExit) as stopped:
        edgeleaf.cli.main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BundleError("none: no such bundle"), 2, "none: no such bundle"),
        (GateFailed("gate cosine_mean: 0.1"), 1, "gate cosine_mean: 0.1"),
        (FileNotFoundError(2, "No such file", "x"), 2, "[Errno 2] No such file: 'x'"),
        (BrokenPipeError(32, "Broken pipe"), 2, "[Errno 32] Broken pipe"),
        (MemoryError("Unable to allocate 4 GiB"), 2, "out of memory: Unable to allocate 4 GiB"),
        (MemoryError(), 2, "out of memory"),
        (KeyError("dim"), 2, f"{FAULT}: KeyError: 'dim' (edgeleaf/cli/use.py:"),
        (RecursionError("maximum\ndepth"), 2, f"{FAULT}: RecursionError: maximum depth ("),
        (EOFError("ended early"), 2, f"{FAULT}: EOFError: ended early (edgeleaf/cli/use.py:"),
        (AssertionError(), 2, f"{FAULT}: AssertionError ("),
        (typer.Abort(), 2, FAULT),
    ],
)
def test_a_failure_is_one_line(
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raises(error, monkeypatch) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"edgeleaf: {line}")
    assert said.err.count("\n") == 1


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeleaf import extras

    monkeypatch.setattr(extras, "_is_there", lambda name: name != "onnx")
    assert raises(ModuleNotFoundError("No module named 'onnx.helper'", name="onnx.helper"), monkeypatch) == 2
    expected = "edgeleaf: this needs onnx, not installed: pip install 'edgeleaf[distill]'\n"
    assert capsys.readouterr().err == expected
    assert raises(ModuleNotFoundError("No module named 'edgeleaf.x'", name="edgeleaf.x"), monkeypatch) == 2
    assert capsys.readouterr().err.startswith("edgeleaf: this is a fault in edgeleaf")


def test_the_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert raises(KeyError("dim"), monkeypatch, "--traceback") == 2
    with_option = capsys.readouterr().err
    monkeypatch.setenv("EDGELEAF_TRACEBACK", "1")
    assert raises(KeyError("dim"), monkeypatch) == 2
    for said in (with_option, capsys.readouterr().err):
        assert said.startswith("Traceback (most recent call last):")
        assert said.splitlines()[-1].startswith("edgeleaf: this is a fault in edgeleaf")
    monkeypatch.delenv("EDGELEAF_TRACEBACK")
    assert raises(KeyError("dim"), monkeypatch) == 2
    assert "Traceback (most" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["encode"], "edgeleaf: Missing argument 'bundle'; see: edgeleaf encode --help\n"),
        (["nosuch"], "edgeleaf: No such command 'nosuch'; see: edgeleaf --help\n"),
        (["info", "b", "--nosuch"], "edgeleaf: No such option: --nosuch; see: edgeleaf info --help\n"),
        (["encode", "b", "x", "--threads", "many"], "edgeleaf: Invalid value for '--threads': "),
        (["encode", "b", "x", "--threads", "0"], "edgeleaf: Invalid value for '--threads': "),
    ],
)
def test_a_command_line_that_is_wrong_costs_one_line(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edgeleaf", *arguments])
    with pytest.raises(SystemExit) as stopped:
        edgeleaf.cli.main()
    said = capsys.readouterr()
    assert (stopped.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.lower().startswith(line.lower())


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def show(*_: object, **__: object) -> None:
        warnings.warn("certified on\n  other, this is native", ProcessorWarning, stacklevel=1)

    before = warnings.showwarning
    monkeypatch.setattr(main, "app", show)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        edgeleaf.cli.main()
    assert capsys.readouterr().err == "edgeleaf: warning: certified on other, this is native\n"
    assert warnings.showwarning is before


def test_a_processor_that_is_not_certified_costs_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("edgeleaf.json", "query_encoder.onnx"):
        shutil.copy(tiny_bundle / name, tmp_path)
    manifest = json.loads((tmp_path / "edgeleaf.json").read_text())
    (tmp_path / "edgeleaf.json").write_text(json.dumps(manifest | {"processors": {"other": {}}}))
    done = command("encode", tmp_path, "hello")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith(f"edgeleaf: warning: {tmp_path} is certified on other, this is ")


@pytest.mark.parametrize("entry", ["from edgeleaf.cli import main", "from edgeleaf.cli.main import main"])
def test_main_is_found_where_it_is_looked_for(entry: str) -> None:
    program = f"import sys; sys.argv = ['edgeleaf', '--version']; {entry}; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("edgeleaf 0.")


@pytest.mark.parametrize("make", [str, ValueError])
def test_a_long_reason_keeps_both_ends(make: Callable[[str], object]) -> None:
    long = "where it happened " + "x" * 900 + "\n   and the cause"
    short = reason_of(make(long))
    assert len(short) == 240
    assert short.startswith("where it happened x")
    assert short.endswith("x and the cause")
    assert reason_of(make("one\n  two")) == "one two"


def test_a_received_bundle_runs_no_code(tiny_bundle: Path, tmp_path: Path) -> None:
    """Each command that loads a bundle's student refuses the file by name, before it is imported."""
    marker = tmp_path / "marker"
    bundle = tmp_path / "received"
    shutil.copytree(tiny_bundle, bundle)
    student = bundle / "student"
    (student / "own_pooling.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
        "from sentence_transformers.models import Pooling as Base\n\n\nclass Pooling(Base):\n    pass\n"
    )
    modules = json.loads((student / "modules.json").read_text())
    modules[1]["type"] = "own_pooling.Pooling"
    (student / "modules.json").write_text(json.dumps(modules))
    manifest = json.loads((bundle / "edgeleaf.json").read_text())
    files = manifest["files"]
    files |= {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in files}
    (bundle / "edgeleaf.json").write_text(json.dumps(manifest))
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"where is my parcel {n}\n" for n in range(300)))
    for arguments in (
        ["check", bundle],
        ["bench", bundle],
        ["ship", bundle, "-o", tmp_path / "copy"],
        ["adapt", bundle, "--documents", texts, "-o", tmp_path / "adapted"],
    ):
        done = command(*map(str, arguments))
        assert done.returncode == 2, done.stderr
        assert "own_pooling" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert not marker.exists()
    assert not (tmp_path / "copy").exists() and not (tmp_path / "adapted").exists()
