"""Makes the APK of what Maven built: shrinks with R8, packs with the alignment that Android asks for, signs.

    python android_demo/tools/apk.py                  # android_demo/app/target/edgeleaf-demo.apk, for 64-bit Arm
    python android_demo/tools/apk.py --abi x86_64 -o emulator.apk

Gradle with AGP does all this itself; this is for machines without Google's repository. Debian's zipalign knows pages of
4 KB only, hence our own packing. The key is a debug key, made on the first run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent
TARGET = DEMO / "app" / "target"
TOOLS = DEMO / "target"
OUT = DEMO.parent / "out" / "android"
LIBRARY = OUT / "onnxruntime.aar"
KEY = OUT / "debug.keystore"
ABIS = ("arm64-v8a", "armeabi-v7a", "x86", "x86_64")
MIN_SDK = "26"

DEVICE_RULES = """
-dontwarn android.**
-dontwarn androidx.annotation.**
-dontwarn com.android.**
-dontwarn sun.misc.Cleaner
"""
"""android-all is a whole device, with references to classes that it has not; the SDK's android.jar has none of them."""

PAGE, WORD = 16_384, 4
"""Alignment in bytes of native libraries, which are mapped from the APK, and of all else that is not compressed."""
STORED = (".so", ".onnx", ".arsc", ".png")
ALIGNMENT = 0xD935
"""Extra field of a zip's entry: its alignment and the filler; apksigner keeps an entry aligned that has it."""


def run(*command: object) -> None:
    """Run a command, or stop with what it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"apk: {command[0]} failed: {(done.stdout + done.stderr).strip()[-2000:]}")


def needed(path: Path, command: str = "make android") -> Path:
    """Return a path that exists, or stop and name the command that makes it."""
    if not path.exists():
        sys.exit(f"apk: {path} is missing; make it with: {command}")
    return path


def inputs(folder: Path) -> list[Path]:
    """Return the jars of the app; onnxruntime's classes come from its Android library."""
    classes = folder / "onnxruntime.jar"
    with zipfile.ZipFile(needed(LIBRARY)) as library:
        classes.write_bytes(library.read("classes.jar"))
    own = needed(next(TARGET.glob("edgeleaf-demo-*.jar"), TARGET / "edgeleaf-demo.jar"))
    others = needed(TARGET / "classpath.txt").read_text(encoding="utf-8").strip().split(os.pathsep)
    kept = [Path(jar) for jar in others if not re.search(r"/onnxruntime-[\d.]+\.jar$", jar)]
    return [own, *kept, classes]


def rules_within(jars: list[Path], folder: Path) -> Iterator[Path]:
    """Write and yield the rules for R8 that libraries carry, as AGP applies them."""
    for jar in jars:
        with zipfile.ZipFile(jar) as archive:
            for name in archive.namelist():
                if re.fullmatch(r"META-INF/com\.android\.tools/r8(?:-from-[\d.]+)?/[^/]+\.pro", name):
                    rules = folder / f"{jar.stem}-{Path(name).name}"
                    rules.write_bytes(archive.read(name))
                    yield rules


def shrink(folder: Path) -> Path:
    """Run R8 and return the zip with classes.dex."""
    jars = inputs(folder)
    device = folder / "device.pro"
    device.write_text(DEVICE_RULES, encoding="ascii")
    rules = [device, DEMO / "app" / "proguard-rules.pro", DEMO / "edgeleaf-android" / "consumer-rules.pro"]
    rules += [needed(TARGET / "aapt-rules.pro"), *rules_within(jars, folder)]
    java = Path(shutil.which("java") or sys.exit("apk: java is missing; install openjdk-17-jdk-headless")).resolve()
    android = needed(TARGET / "android-all.txt").read_text(encoding="utf-8").strip()
    dex = folder / "dex.zip"
    configuration = [part for path in rules for part in ("--pg-conf", path)]
    command = ["java", "-Xmx3g", "-cp", needed(TOOLS / "r8.jar"), "com.android.tools.r8.R8", "--release"]
    command += ["--min-api", MIN_SDK, "--lib", java.parent.parent, "--lib", android, *configuration]
    run(*command, "--pg-map-output", TARGET / "mapping.txt", "--output", dex, *jars)
    return dex


def add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add an entry: deflated, or stored at its alignment."""
    entry = zipfile.ZipInfo(name, (1981, 1, 1, 1, 1, 2))  # Gradle's date
    entry.external_attr = 0o644 << 16
    if not name.endswith(STORED):
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, data, compresslevel=9)
        return
    alignment = PAGE if name.endswith(".so") else WORD
    start = archive.fp.tell() + 30 + len(name.encode()) + 6  # after the header, the name and the field's own head
    filler = -start % alignment
    size = 2 + filler
    entry.extra = ALIGNMENT.to_bytes(2, "little") + size.to_bytes(2, "little") + alignment.to_bytes(2, "little")
    entry.extra += bytes(filler)
    archive.writestr(entry, data)


def entries(dex: Path, abis: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of what the APK holds."""
    for source, wanted in ((needed(TARGET / "resources.apk"), ""), (dex, r"classes\d*\.dex|META-INF/services/.*")):
        with zipfile.ZipFile(source) as archive:
            for name in archive.namelist():
                if not wanted or re.fullmatch(wanted, name):
                    yield name, archive.read(name)
    with zipfile.ZipFile(LIBRARY) as library:
        for name in library.namelist():
            if name.endswith(".so") and Path(name).parent.name in abis:
                yield f"lib/{Path(name).parent.name}/{Path(name).name}", library.read(name)


def sign(unsigned: Path, apk: Path) -> None:
    """Sign with the debug key."""
    if not shutil.which("apksigner"):
        sys.exit("apk: apksigner is missing; install it (apt-get install --no-install-recommends apksigner)")
    secret = ("-storepass", "android", "-keypass", "android")
    if not KEY.exists():
        named = ("-alias", "debug", "-dname", "CN=edgeleaf debug", "-validity", "10000")
        run("keytool", "-genkeypair", "-keystore", KEY, *secret, *named, "-keyalg", "RSA", "-keysize", "2048")
    key = ("--ks", KEY, "--ks-pass", "pass:android", "--min-sdk-version", MIN_SDK, "--v1-signing-enabled", "false")
    run("apksigner", "sign", *key, "--out", apk, unsigned)


def main() -> None:
    """Make the APK and say how large it is."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--abi", action="append", choices=ABIS, help="processors to carry libraries for (arm64-v8a)")
    asked.add_argument("-o", "--output", type=Path, default=TARGET / "edgeleaf-demo.apk")
    given = asked.parse_args()
    folder = TARGET / "apk"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    unsigned = folder / "unsigned.apk"
    with zipfile.ZipFile(unsigned, "w") as archive:
        for name, data in entries(shrink(folder), given.abi or ["arm64-v8a"]):
            add(archive, name, data)
    sign(unsigned, given.output)
    unsigned.unlink()
    sys.stderr.write(f"{given.output}: {given.output.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
