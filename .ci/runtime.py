"""The tests that need numpy and onnxruntime only, on the wheel, where nothing else is installed.

    python3.12 .ci/runtime.py [WHEEL]

It makes .venv-runtime-3.12 anew, installs the wheel as a user does, and pytest and hypothesis beside it. Without WHEEL
it builds one from this checkout. The tests run in a copy that has no edgeleaf beside it, so that they import what was
installed. They load export/models/mpnet, or the bundle that EDGELEAF_TINY_BUNDLE names. Tests that compare with torch
or `tokenizers` are skipped by name; .ci/run runs those. Works on Linux, macOS and Windows, without make.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/bundle", "tests/search", "tests/cli/test_doctor.py")
REFERENCE = Path("export", "models", "mpnet")
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "EDGELEAF_REQUIRE_RUNTIMES")
"""Variables that would let the checkout in, or ask for the packages that are left out here."""


def main(wheels: list[str]) -> int:
    """Return pytest's exit code."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    folder = ROOT / f".venv-runtime-{sys.version_info.major}.{sys.version_info.minor}"
    venv.create(folder, clear=True, symlinks=os.name != "nt", with_pip=True)
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        copy = Path(temporary)
        if not wheels:
            command = [*pip, "wheel", "--no-deps", "--wheel-dir", str(copy / "dist"), str(ROOT)]
            subprocess.run(command, env=environment, cwd=copy, check=True)
            wheels = [str(path) for path in (copy / "dist").iterdir()]
        constraints = ["-c", str(ROOT / "constraints.txt")]
        wanted = ["pytest", "hypothesis", *(str(Path(wheel).resolve()) for wheel in wheels)]
        subprocess.run([*pip, "install", *constraints, *wanted], env=environment, cwd=copy, check=True)
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / REFERENCE, copy / REFERENCE)
        shutil.copy(ROOT / "pyproject.toml", copy)
        command = [python, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *TESTS]
        return subprocess.run(command, env=environment, cwd=copy, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
