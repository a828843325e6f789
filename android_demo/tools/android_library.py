"""Fetches onnxruntime's Android library, which Maven Central lacks, from the npm package that carries it.

    python android_demo/tools/android_library.py out/android/onnxruntime.aar

Its hash is checked. It is the version of the Java package in android_demo/pom.xml, and older than onnxruntime's
telemetry.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "com.github.asus4.onnxruntime@0.4.8"
MEMBER = "package/Plugins/Android/onnxruntime.aar"
VERSION = "1.26.0"
SHA256 = "09c0780ae8d734ef2774bdf498b624729a855e6f9a8e488a0e7398a4e7396032"


def is_it(library: Path) -> bool:
    """Return whether a file is there and is the library."""
    return library.is_file() and hashlib.sha256(library.read_bytes()).hexdigest() == SHA256


def fetch(library: Path) -> None:
    """Write the library, completely or not at all."""
    if not shutil.which("npm"):
        sys.exit("android_library: npm is missing; install Node.js with npm (apt-get install nodejs npm)")
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        command = ["npm", "pack", PACKAGE, "--silent"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        packages = list(Path(folder).glob("*.tgz"))
        if done.returncode or not packages:
            sys.exit(f"android_library: npm cannot fetch {PACKAGE}: {done.stderr.strip()[-300:]}")
        with tarfile.open(packages[0]) as archive:
            source = archive.extractfile(MEMBER)
            if source is None:
                sys.exit(f"android_library: {PACKAGE} has no {MEMBER}")
            new = Path(folder) / library.name
            with source, new.open("wb") as target:
                shutil.copyfileobj(source, target)
        if not is_it(new):
            sys.exit(f"android_library: {PACKAGE} carries another library than expected; its sha256 is not {SHA256}")
        new.replace(library)


def main() -> None:
    """Fetch the library unless it is there already."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("output", type=Path)
    library = asked.parse_args().output
    if not is_it(library):
        sys.stderr.write(f"{library}: onnxruntime {VERSION} for Android, 128 MB to fetch\n")
        fetch(library)


if __name__ == "__main__":
    main()
