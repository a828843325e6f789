"""Builds and runs the example of every language that this machine has, and prints a table.

    python examples/languages.py BUNDLE [--only go,rust] [--json FILE] [--strict]

Each program opens the bundle's file, encodes its golden pack, one text at a time and in batches, and compares every
vector with Python's, to the last bit. Java's file is the bundle's own, given another input. What is built or fetched
lies in out/languages. ``--strict`` makes a language that cannot be built an error, as continuous integration wants it.

Cold start: the median of five runs of the whole program on one text, from the start of the process to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf import QueryEncoder
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import QUERY_ENCODER, STUDENT, Manifest

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "examples"
WORK = ROOT / "out" / "languages"
RUNS = 5
ROUNDED = 2e-6
"""A golden pack has six digits."""
NATIVE = {("Linux", "x86_64"): "linux-x64", ("Linux", "aarch64"): "linux-aarch64"}


class Lacking(Exception):
    """What a language needs and this machine has not; one line."""


class TooOld(Lacking):
    """A compiler is there, but too old: Debian's may be, so this is no error."""


@dataclass(frozen=True)
class Row:
    """A line of the table; ``equal`` is None if the program did not run, and ``why`` says why."""

    language: str
    package: str
    version: str
    equal: int | None = None
    texts: int | None = None
    p50_ms: float | None = None
    cold_ms: float | None = None
    size_mb: float | None = None
    why: str = ""
    excused: bool = False


@dataclass(frozen=True)
class Program:
    """A built program: its command, its model, the variables that it needs, and the size of what is carried there."""

    command: Sequence[str | Path]
    model: Path
    variables: dict[str, str]
    size: int


def write_pack(folder: Path, texts: Sequence[str], vectors: Any) -> Path:
    """Write texts.bin (a count, then each text's length and UTF-8) and vectors.bin (float32), little endian."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [text.encode() for text in texts]
    numbers = [len(rows).to_bytes(4, "little"), *(len(row).to_bytes(4, "little") + row for row in rows)]
    (folder / "texts.bin").write_bytes(b"".join(numbers))
    (folder / "vectors.bin").write_bytes(np.asarray(vectors, dtype="<f4").tobytes())
    return folder


def golden_pack(bundle: Path) -> tuple[list[str], Any]:
    """Return the bundle's golden texts with the vectors that Python gives, after comparing these with the pack's."""
    entries = read_golden(bundle)
    texts = [entry["text"] for entry in entries]
    vectors = QueryEncoder.load(bundle).encode(texts)
    furthest = float(np.abs(vectors - np.array([entry["embedding"] for entry in entries])).max())
    if furthest > ROUNDED:
        sys.exit(f"languages: Python's vectors are {furthest:.2g} from those of {bundle}/golden.jsonl")
    return texts, vectors


def utf8_model(bundle: Path) -> Path:
    """Return the bundle's file with an input of UTF-8 bytes, as ``edgeleaf ship --input utf8`` makes it."""
    manifest = Manifest.read(bundle)
    file = WORK / f"utf8-{manifest.files[QUERY_ENCODER][:12]}.onnx"
    if manifest.input == "utf8":
        return bundle / QUERY_ENCODER
    if not file.exists():
        try:
            import onnx
            import tokenizers  # noqa: F401
        except ImportError as error:
            raise Lacking(f"a file that takes bytes needs {error.name}: make setup") from None
        from edgeleaf.files import write_bytes
        from edgeleaf.graph.builder import serialize
        from edgeleaf.graph.fuse import with_input

        tokenizer = (bundle / STUDENT / "tokenizer.json").read_text(encoding="utf-8")
        window, prompt = int(manifest.fact("tokenizer", "max_length")), manifest.space.query_prompt
        model = onnx.load(str(bundle / QUERY_ENCODER))
        write_bytes(file, serialize(with_input(model, tokenizer, max_length=window, prompt=prompt, takes="utf8")))
    return file


def run(command: Sequence[str | Path], *, cwd: Path | None = None, **variables: str) -> str:
    """Run a command that builds or fetches something; its failure is what is lacking."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise Lacking(f"{Path(command[0]).name} failed: {said[-300:]}")
    return done.stdout


def tool(*names: str) -> None:
    """Check that programs are there."""
    if missing := [name for name in names if not shutil.which(name)]:
        raise Lacking(f"{', '.join(missing)} not installed")


def at_least(command: Sequence[str], file: str, pattern: str) -> None:
    """Check a compiler's version by the oldest one that an example's file names."""
    oldest = re.search(pattern, (HERE / file).read_text(encoding="utf-8"))
    found = re.search(r"(\d+)\.(\d+)", run(command))
    if oldest and found and tuple(map(int, found.groups())) < tuple(map(int, oldest.groups())):
        raise TooOld(f"{command[0]} is {found[0]}; {'.'.join(oldest.groups())} or newer is needed")


def java_package() -> Path:
    """Return onnxruntime's Java package, which carries its C library for five platforms."""
    tool("mvn")
    version = pinned("java")[1]
    jar = WORK / f"onnxruntime-{version}.jar"
    if not jar.exists():
        artifact = f"com.microsoft.onnxruntime:onnxruntime:{version}"
        copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
        run(["mvn", "-q", copy, f"-Dartifact={artifact}", f"-DoutputDirectory={WORK}"])
    return jar


def c_library() -> Path:
    """Return onnxruntime's C library, out of its Java package."""
    native = NATIVE.get((platform.system(), platform.machine()))
    if native is None:
        raise Lacking(f"no C library for {platform.system()} on {platform.machine()} in the Java package")
    library = WORK / "onnxruntime" / "lib" / "libonnxruntime.so"
    jar = java_package()
    if not library.exists() or library.stat().st_mtime < jar.stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(jar) as archive:
            library.write_bytes(archive.read(f"ai/onnxruntime/native/{native}/libonnxruntime.so"))
    soname = library.with_name("libonnxruntime.so.1")  # what a program that links it looks for
    if not soname.exists():
        soname.symlink_to(library.name)
    return library


def c_headers() -> None:
    """Put onnxruntime's headers beside its library, out of its Android package."""
    include = WORK / "onnxruntime" / "include"
    if (include / "onnxruntime_cxx_api.h").exists():
        return
    aar = ROOT / "out" / "android" / "onnxruntime.aar"
    run([sys.executable, ROOT / "android_demo" / "tools" / "android_library.py", aar])
    include.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(aar) as archive:
        for name in archive.namelist():
            if name.startswith("headers/") and name.endswith(".h"):
                (include / Path(name).name).write_bytes(archive.read(name))


def build_python(bundle: Path) -> Program:
    import onnxruntime

    size = size_of(ROOT / "edgeleaf", *(Path(str(package.__file__)).parent for package in (np, onnxruntime)))
    program = [sys.executable, HERE / "python" / "main.py"]
    return Program(program, bundle / QUERY_ENCODER, {"PYTHONPATH": str(ROOT)}, size)


def build_go(bundle: Path) -> Program:
    tool("go", "gcc")
    at_least(["go", "version"], "go/go.mod", r"(?m)^go (\d+)\.(\d+)")
    library, program = c_library(), WORK / "encode-go"
    run(["go", "build", "-o", program, "."], cwd=HERE / "go", GOFLAGS="-mod=readonly -buildvcs=false", CGO_ENABLED="1")
    return Program([program], bundle / QUERY_ENCODER, {"ORT_DYLIB_PATH": str(library)}, size_of(program, library))


def build_rust(bundle: Path) -> Program:
    tool("cargo")
    at_least(["rustc", "--version"], "rust/Cargo.toml", r'rust-version = "(\d+)\.(\d+)')
    library, target = c_library(), WORK / "rust"
    run(["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", target], cwd=HERE / "rust")
    program = target / "release" / "encode"
    return Program([program], bundle / QUERY_ENCODER, {"ORT_DYLIB_PATH": str(library)}, size_of(program, library))


def build_cpp(bundle: Path) -> Program:
    tool("g++")
    c_headers()
    library, program = c_library(), WORK / "encode-cpp"
    folders = [f"-I{WORK / 'onnxruntime' / 'include'}", f"-Wl,-rpath,{library.parent}"]
    run(["g++", "-std=c++17", "-O2", "-Wall", *folders, HERE / "cpp" / "main.cpp", library, "-o", program])
    return Program([program], bundle / QUERY_ENCODER, {}, size_of(program, library))


def build_java(bundle: Path) -> Program:
    tool("javac", "java")
    jar, classes, model = java_package(), WORK / "java", utf8_model(bundle)
    source = HERE / "java" / "src" / "main" / "java" / "Encode.java"
    run(["javac", "-Xlint:all", "--release", "17", "-cp", jar, "-d", classes, source])
    return Program(["java", "-cp", f"{classes}{os.pathsep}{jar}", "Encode"], model, {}, size_of(jar))


def build_node(bundle: Path) -> Program:
    tool("node", "npm")
    folder = WORK / "node"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "main.mjs"):
        shutil.copyfile(HERE / "node" / name, folder / name)
    if not (folder / "node_modules" / ".package-lock.json").exists():
        run(["npm", "ci"], cwd=folder)
    return Program(["node", folder / "main.mjs"], bundle / QUERY_ENCODER, {}, size_of(folder / "node_modules"))


def build_csharp(bundle: Path) -> Program:
    tool("dotnet")
    folder = WORK / "csharp"
    run(["dotnet", "build", "--configuration", "Release", "--output", folder], cwd=HERE / "csharp")
    return Program([folder / "encode"], bundle / QUERY_ENCODER, {}, size_of(folder))


def size_of(*parts: Path) -> int:
    """Return the bytes of files and folders."""
    files = [file for part in parts for file in ([part] if part.is_file() else part.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())


BUILDERS: dict[str, Callable[[Path], Program]] = {
    "python": build_python,
    "go": build_go,
    "rust": build_rust,
    "cpp": build_cpp,
    "java": build_java,
    "node": build_node,
    "csharp": build_csharp,
}
TITLES = {"python": "Python", "go": "Go", "rust": "Rust", "cpp": "C++", "java": "Java", "node": "Node", "csharp": "C#"}
UNEXECUTED = ("csharp",)
"""Written, and built where .NET is; nothing installs it."""
_PINS = {
    "go": ("go/go.mod", r"require (\S+) v(\S+)"),
    "rust": ("rust/Cargo.toml", r'(?m)^(ort) = \{ version = "=([^"]+)"'),
    "cpp": ("cpp/CMakeLists.txt", r"of (onnxruntime) ([\d.]+)"),
    "java": ("java/pom.xml", r"<artifactId>(onnxruntime)</artifactId>\s*<version>([^<]+)"),
    "node": ("node/package.json", r'"(onnxruntime-node)": "([^"]+)"'),
    "csharp": ("csharp/encode.csproj", r'Include="([^"]+)" Version="\[([^\]]+)\]"'),
}


def pinned(language: str) -> tuple[str, str]:
    """Return the package by which a language runs onnxruntime, and its version."""
    if language == "python":
        import onnxruntime

        return "onnxruntime", str(onnxruntime.__version__)
    file, pattern = _PINS[language]
    found = re.search(pattern, (HERE / file).read_text(encoding="utf-8"))
    if found is None:
        raise Lacking(f"{file} pins no package")
    return found[1], found[2]


def encode(program: Program, pack: Path) -> dict[str, Any]:
    """Run a program on a pack; return what it prints, and ``cold_ms``, how long it took altogether."""
    command = [*map(str, program.command), str(program.model), str(pack), "1"]
    start = time.perf_counter()
    done = subprocess.run(
        command,
        env=os.environ | program.variables | {"ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - start
    if done.returncode not in (0, 1):
        raise Lacking(f"exit {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
    return {**json.loads(done.stdout), "cold_ms": 1e3 * taken}


def measure(language: str, bundle: Path) -> Row:
    """Build and run a language's program."""
    package, version = pinned(language)
    title = TITLES[language]
    try:
        program = BUILDERS[language](bundle)
        found = encode(program, WORK / "pack")
        if encode(program, WORK / "changed")["equal"] != 1:
            raise Lacking("it does not see that one bit of one of two vectors is another one")
        cold = statistics.median(encode(program, WORK / "one")["cold_ms"] for _ in range(RUNS))
    except Lacking as error:
        excused = isinstance(error, TooOld) or language in UNEXECUTED
        return Row(title, package, version, why=str(error), excused=excused)
    return Row(
        title, package, version, found["equal"], found["texts"], found["p50_ms"], round(cold), program.size / 1e6
    )


def table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = ["| language | package | texts equal | p50 | cold start | beside the file |", "|---|---|---|---|---|---|"]
    for row in rows:
        start = f"| {row.language} | `{row.package}` {row.version} |"
        if row.equal is None:
            lines.append(f"{start} not run here | – | – | – |")
        else:
            times = f"{row.p50_ms:.1f} ms | {row.cold_ms:.0f} ms"
            lines.append(f"{start} {row.equal} of {row.texts} | {times} | {row.size_mb:.0f} MB |")
    return "\n".join(lines)


def main() -> int:
    """Return the exit code: 1 if a vector differs, or if a language is lacking and ``--strict`` is set."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("bundle", type=Path)
    asked.add_argument("--only", default=",".join(BUILDERS))
    asked.add_argument("--json", type=Path)
    asked.add_argument("--strict", action="store_true")
    given = asked.parse_args()
    languages = given.only.split(",")
    if unknown := set(languages) - set(BUILDERS):
        sys.exit(f"languages: no example for {', '.join(sorted(unknown))}; there are {', '.join(BUILDERS)}")
    WORK.mkdir(parents=True, exist_ok=True)
    write_packs(given.bundle)
    rows = []
    for language in languages:
        sys.stderr.write(f"languages: {TITLES[language]}\n")
        rows.append(measure(language, given.bundle))
        if rows[-1].why:
            sys.stderr.write(f"languages: {TITLES[language]} was not run: {rows[-1].why}\n")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{table(rows)}\n")
    lacking = given.strict and any(row.equal is None and not row.excused for row in rows)
    return int(lacking or any(row.equal is not None and row.equal < (row.texts or 0) for row in rows))


def write_packs(bundle: Path) -> None:
    """Write what programs are run on: the golden pack; one text; two texts, with a changed bit in a vector."""
    texts, vectors = golden_pack(bundle)
    write_pack(WORK / "pack", texts, vectors)
    write_pack(WORK / "one", texts[-1:], vectors[-1:])
    changed = vectors[-2:].copy()
    changed.view(np.uint32)[1, -1] ^= 1
    write_pack(WORK / "changed", texts[-2:], changed)


if __name__ == "__main__":
    sys.exit(main())
