"""export/serve: the Containerfile and the systemd unit, as far as linters can tell; neither was run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "export" / "serve"


def test_the_container_file() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.is_file():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, FOLDER / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_systemd_unit(tmp_path: Path) -> None:
    text = (FOLDER / "edgeleaf.service").read_text(encoding="utf-8")
    assert "ExecStart=/opt/edgeleaf/bin/edgeleaf serve /srv/edgeleaf/bundle" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "edgeleaf.service"
    unit.write_text(text.replace("/opt/edgeleaf/bin/edgeleaf", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_variable_is_one_of_the_command() -> None:
    from edgeleaf.cli import serve

    source = Path(serve.__file__).read_text(encoding="utf-8")
    known = set(re.findall(r'envvar="(EDGELEAF_\w+)"', source))
    for name in ("Containerfile", "edgeleaf.service"):
        used = set(re.findall(r"EDGELEAF_\w+", (FOLDER / name).read_text(encoding="utf-8")))
        assert used and used <= known
