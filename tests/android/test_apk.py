"""The APK that ``make android`` leaves: signed, aligned, without permissions, its encoder stored, nobody told."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "android_demo"
APK = DEMO / "app" / "target" / "edgeleaf-demo.apk"
AAPT2 = DEMO / "target" / "aapt2" / "prebuilt" / "linux" / "aapt2_64"
LIBRARY = ROOT / "out" / "android" / "onnxruntime.aar"
JAR = next(DEMO.glob("edgeleaf/target/edgeleaf-[0-9]*[0-9].jar"), DEMO / "edgeleaf" / "target" / "edgeleaf.jar")
PAGE = 16_384
COLLECTOR = b"events.data.microsoft.com"


@pytest.fixture(scope="module")
def apk() -> zipfile.ZipFile:
    """The APK; skipped, or failed where EDGELEAF_REQUIRE_ANDROID says that it is there."""
    for path in (APK, AAPT2, LIBRARY, JAR):
        if not path.exists():
            if os.environ.get("EDGELEAF_REQUIRE_ANDROID") == "1":
                pytest.fail(f"{path} is missing; make android")
            pytest.skip(f"{path} is missing; make android")
    return zipfile.ZipFile(APK)


def said(*command: object) -> str:
    """Return what a command prints."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Return where an entry's data begins in the file."""
    with Path(str(archive.filename)).open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    return entry.header_offset + 30 + int(name) + int(extra)


def load_alignments(library: bytes) -> list[int]:
    """Return the alignments of an ELF file's LOAD segments."""
    assert library[:4] == b"\x7fELF" and library[5] == 1
    wide = library[4] == 2
    start = struct.unpack_from("<Q", library, 32)[0] if wide else struct.unpack_from("<I", library, 28)[0]
    size, count = struct.unpack_from("<HH", library, 54 if wide else 42)
    found = []
    for place in range(start, start + size * count, size):
        if struct.unpack_from("<I", library, place)[0] == 1:
            found.append(int(struct.unpack_from("<Q" if wide else "<I", library, place + (48 if wide else 28))[0]))
    return found


def is_aligned(start: int, name: str) -> bool:
    return start % (PAGE if name.endswith(".so") else 4) == 0


def test_it_is_signed(apk: zipfile.ZipFile) -> None:
    if not shutil.which("apksigner"):
        pytest.skip("apksigner is missing; make android installs it")
    text = said("apksigner", "verify", "-v", APK)
    assert text.startswith("Verifies\n")
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in text


def test_a_changed_apk_is_not_verified(apk: zipfile.ZipFile, tmp_path: Path) -> None:
    if not shutil.which("apksigner"):
        pytest.skip("apksigner is missing; make android installs it")
    changed = bytearray(APK.read_bytes())
    changed[start_of(apk, apk.getinfo("assets/query_encoder.onnx")) + 1000] ^= 1
    (tmp_path / "changed.apk").write_bytes(changed)
    done = subprocess.run(["apksigner", "verify", tmp_path / "changed.apk"], capture_output=True, check=False)
    assert done.returncode != 0


def test_it_has_no_permission(apk: zipfile.ZipFile) -> None:
    text = said(AAPT2, "dump", "badging", APK)
    assert "package: name='io.github.edgeleaf.demo'" in text
    assert "minSdkVersion:'26'\n" in text and "targetSdkVersion:'35'\n" in text
    assert "launchable-activity: name='io.github.edgeleaf.demo.SearchActivity'" in text
    assert "permission" not in text
    assert said(AAPT2, "dump", "permissions", APK).split() == ["package:", "io.github.edgeleaf.demo"]
    tree = said(AAPT2, "dump", "xmltree", APK, "--file", "AndroidManifest.xml")
    assert re.search(r"allowBackup\(.*=false", tree) and re.search(r"extractNativeLibs\(.*=false", tree)
    assert "debuggable" not in tree and "<provider" not in tree


def test_what_is_mapped_is_stored_and_aligned(apk: zipfile.ZipFile) -> None:
    stored = [entry for entry in apk.infolist() if entry.compress_type == zipfile.ZIP_STORED and entry.file_size]
    names = {entry.filename for entry in stored}
    assert {"assets/query_encoder.onnx", "resources.arsc"} <= names
    assert {name for name in apk.namelist() if name.endswith(".so")} <= names
    assert [entry.filename for entry in stored if not is_aligned(start_of(apk, entry), entry.filename)] == []
    assert apk.testzip() is None


def test_the_encoder_and_the_documents_are_those_that_were_built(apk: zipfile.ZipFile) -> None:
    built = ROOT / "out" / "android" / "bundle" / "query_encoder.onnx"
    assert apk.read("assets/query_encoder.onnx") == built.read_bytes()
    assert apk.read("assets/index.zip") == (DEMO / "app" / "src" / "main" / "assets" / "index.zip").read_bytes()


def test_libraries_are_for_pages_of_16_kb_and_know_no_collector(apk: zipfile.ZipFile) -> None:
    with zipfile.ZipFile(LIBRARY) as library:
        names = [name for name in library.namelist() if name.endswith(".so")]
        assert len(names) == 8
        for name in names:
            data = library.read(name)
            alignments = load_alignments(data)
            assert alignments and all(alignment % PAGE == 0 for alignment in alignments), (name, alignments)
            assert COLLECTOR not in data
        within = [name for name in apk.namelist() if name.endswith(".so")]
        assert sorted(within) == ["lib/arm64-v8a/libonnxruntime.so", "lib/arm64-v8a/libonnxruntime4j_jni.so"]
        for name in within:
            assert apk.read(name) == library.read(name.replace("lib/", "jni/"))
    assert not any(COLLECTOR in apk.read(name) for name in apk.namelist() if name.endswith(".dex"))


def classes(archive: zipfile.ZipFile) -> set[str]:
    """Return the classes that an archive's dex files define, by their descriptors."""
    found = set()
    for name in archive.namelist():
        if not re.fullmatch(r"classes\d*\.dex", name):
            continue
        dex = archive.read(name)
        assert dex[:4] == b"dex\n"
        strings, types = struct.unpack_from("<I", dex, 0x3C)[0], struct.unpack_from("<I", dex, 0x44)[0]
        count, start = struct.unpack_from("<II", dex, 0x60)
        for definition in range(count):
            type_id = struct.unpack_from("<I", dex, start + 32 * definition)[0]
            string_id = struct.unpack_from("<I", dex, types + 4 * type_id)[0]
            place = struct.unpack_from("<I", dex, strings + 4 * string_id)[0]
            while dex[place] & 0x80:  # the length in front, which nobody needs
                place += 1
            found.add(dex[place + 1 : dex.index(b"\0", place + 1)].decode())
    return found


def test_r8_kept_our_api_and_onnxruntime(apk: zipfile.ZipFile) -> None:
    kept = classes(apk)
    with zipfile.ZipFile(JAR) as jar:
        ours = {name for name in jar.namelist() if re.fullmatch(r"io/github/edgeleaf/\w+\.class", name)}
    public = {
        "QueryEncoder",
        "VectorSpace",
        "DocumentIndex",
        "Hit",
        "IndexStore",
        "SemanticSearch",
        "EdgeleafException",
    }
    assert {f"io/github/edgeleaf/{name}.class" for name in public} <= ours
    assert {f"Lio/github/edgeleaf/{name};" for name in public} <= kept
    assert {"Lio/github/edgeleaf/android/AssetSearch;", "Lio/github/edgeleaf/demo/SearchActivity;"} <= kept
    with zipfile.ZipFile(LIBRARY) as library:
        (DEMO / "target").mkdir(exist_ok=True)
        copied = library.extract("classes.jar", DEMO / "target")
    with zipfile.ZipFile(copied) as jar:
        runtime = {f"L{name.removesuffix('.class')};" for name in jar.namelist() if name.endswith(".class")}
    assert "Lai/onnxruntime/OrtSession;" in runtime
    assert runtime - kept == set()
    assert sum(apk.getinfo(name).file_size for name in apk.namelist() if name.endswith(".dex")) < 1_500_000


def test_wrong_alignments_are_seen() -> None:
    assert is_aligned(PAGE, "lib/x.so") and not is_aligned(4096, "lib/x.so")
    assert is_aligned(4096, "x.onnx") and not is_aligned(4098, "x.onnx")
    header = bytearray(64 + 56)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    struct.pack_into("<I", header, 64, 1)
    struct.pack_into("<Q", header, 64 + 48, 4096)
    assert load_alignments(bytes(header)) == [4096]
