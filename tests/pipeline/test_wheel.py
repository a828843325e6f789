"""A bundle as a wheel: data only, hashed, the same bytes each time; installed, it encodes as the bundle does."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from email.parser import Parser
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import edgeleaf
from edgeleaf import QueryEncoder
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import CERTIFICATE, MODEL_CARD, QUERY_ENCODER, Manifest, hash_files
from edgeleaf.errors import BundleError, GateFailed, InputError
from edgeleaf.pipeline.wheel import ship_wheel
from tests.conftest import REFERENCE

ROOT = Path(__file__).parent.parent.parent
INFO = "edgeleaf_my_queries-1.2.dist-info"
RUNTIME = ("edgeleaf.json", "query_encoder.onnx", "golden.jsonl", "certificate.json", "certificate.html", "README.md")


@pytest.fixture(scope="module")
def wheel(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle as a wheel, with its own texts."""
    folder = tmp_path_factory.mktemp("dist")
    return ship_wheel(tiny_bundle, output=folder, name="My.Queries", version="1.2", keep_texts=True)


def test_the_wheel_holds_data_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == "edgeleaf_my_queries-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = archive.read(f"{INFO}/entry_points.txt").decode()
        metadata = Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())
    assert points == "[edgeleaf.bundles]\nmy-queries = edgeleaf_my_queries\n"
    assert {f"edgeleaf_my_queries/{name}" for name in RUNTIME} <= set(names)
    suffixes = {Path(name).suffix for name in names if not name.startswith(INFO)}
    assert suffixes == {".json", ".jsonl", ".onnx", ".html", ".md"}
    assert {name.partition("/")[0] for name in names} == {"edgeleaf_my_queries", INFO}
    assert (metadata["Name"], metadata["Version"], metadata["Requires-Dist"]) == ("edgeleaf-my-queries", "1.2", None)


def test_every_file_has_its_hash_in_the_record(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(f"{INFO}/RECORD").decode().splitlines()
        assert {line.split(",")[0] for line in lines} == set(archive.namelist())
        for name, digest, size in (line.split(",") for line in lines[:-1]):
            data = archive.read(name)
            found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={found}", len(data)), name
    assert lines[-1] == f"{INFO}/RECORD,,"


def test_the_unpacked_bundle_is_whole(wheel: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "edgeleaf_my_queries"
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    assert manifest.files == hash_files(folder)
    texts = ["lost parcel", "", "👩‍👩‍👧‍👦 \0 é"]
    np.testing.assert_array_equal(QueryEncoder.load(folder).encode(texts), QueryEncoder.load(tiny_bundle).encode(texts))


def test_the_same_bundle_gives_the_same_bytes(wheel: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    again = ship_wheel(tiny_bundle, output=tmp_path, name="my-queries", version="1.2", keep_texts=True)
    assert again.read_bytes() == wheel.read_bytes()
    assert ship_wheel(tiny_bundle, output=tmp_path, name="my-queries", version="1.2", keep_texts=True) == again


def test_a_version_stands_for_one_bundle(wheel: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    taken = tmp_path / wheel.name
    taken.write_bytes(b"another one")
    with pytest.raises(BundleError, match="exists, with other contents; .* give a new --version$"):
        ship_wheel(tiny_bundle, output=tmp_path, name="my-queries", version="1.2", keep_texts=True)
    assert taken.read_bytes() == b"another one"
    assert list(tmp_path.iterdir()) == [taken]


def test_what_is_there_is_seen_before_a_copy_is_certified(
    wheel: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeleaf.pipeline.wheel.ship", lambda *_, **__: pytest.fail("certified"))
    (tmp_path / wheel.name).write_bytes(b"another one")
    with pytest.raises(BundleError, match="exists; .* give a new --version, or remove the wheel$"):
        ship_wheel(tiny_bundle, output=tmp_path, name="my-queries", version="1.2")
    with pytest.raises(BundleError, match="is not a folder; give the folder"):
        ship_wheel(tiny_bundle, output=tmp_path / wheel.name)


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("", "1.0", 'the name is ""; letters, digits'),
        ("../x", "1.0", "the name is"),
        ("a b", "1.0", "the name is"),
        ("a\nb", "1.0", "the name is"),
        ("é", "1.0", "the name is"),
        ("x" * 200, "1.0", "the name is"),
        ("fine", "", 'the version is ""; one such as'),
        ("fine", "1.0-beta", "the version is"),
        ("fine", "v1", "the version is"),
        ("fine", "01.0", "the version is"),
        ("fine", "1/../2", "the version is"),
        ("fine", "1.0\nName: other", "the version is"),
        ("fine", "١.0", "the version is"),
    ],
)
def test_names_that_packages_cannot_have_are_refused(
    tiny_bundle: Path, tmp_path: Path, name: str, version: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        ship_wheel(tiny_bundle, output=tmp_path / "new", name=name, version=version, keep_texts=True)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "version", ["0", "1.2.3", "2.0rc1", "1.0.post1", "1.0.dev3", "2026.11.29", "1!1.0", "1.0+acme.2"]
)
def test_versions_of_packages_are_taken(tiny_bundle: Path, tmp_path: Path, version: str) -> None:
    from packaging.utils import parse_wheel_filename

    made = ship_wheel(tiny_bundle, output=tmp_path, name="n", version=version, keep_texts=True)
    name, found, _, _ = parse_wheel_filename(made.name)
    assert (name, str(found)) == ("edgeleaf-n", version)


def test_a_bundle_that_failed_a_gate_is_not_packed(tiny_bundle: Path, tmp_path: Path) -> None:
    failed = with_certificate(shutil.copytree(tiny_bundle, tmp_path / "failed"), ok=False)
    with pytest.raises(GateFailed, match="failed is not handed on: gate cosine_mean"):
        ship_wheel(failed, output=tmp_path / "dist", keep_texts=True)
    assert not (tmp_path / "dist").exists()


def test_a_damaged_bundle_is_not_packed(tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    (damaged / QUERY_ENCODER).write_bytes(b"x")
    with pytest.raises(BundleError, match="damaged: sha256"):
        ship_wheel(damaged, output=tmp_path / "dist", keep_texts=True)
    assert not (tmp_path / "dist").exists()


def test_a_card_cannot_add_a_header(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "b")
    replace(Manifest.read(folder), description="one\nRequires-Dist: evil").write(folder)
    (folder / MODEL_CARD).write_text("Requires-Dist: evil\n\nName: other\n", encoding="utf-8")
    with zipfile.ZipFile(ship_wheel(folder, output=tmp_path, version="1.2", keep_texts=True)) as archive:
        metadata = Parser().parsestr(archive.read("edgeleaf_b-1.2.dist-info/METADATA").decode())
    assert metadata["Requires-Dist"] is None
    assert metadata["Name"] == "edgeleaf-b"
    assert metadata["Summary"] == "one Requires-Dist: evil"


def test_both_wheels_encode_in_an_empty_environment(tmp_path: Path) -> None:
    """With numpy and onnxruntime alone, no path to this checkout, by the bundle's name: equal to the last bit."""
    dist = tmp_path / "dist"
    own(dist)
    student = ship_wheel(REFERENCE, output=dist, keep_texts=True)
    python = empty_environment(tmp_path / "v")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, *map(str, sorted(dist.glob("*.whl")))], check=True, cwd=tmp_path)

    golden = [entry["text"] for entry in read_golden(REFERENCE)]
    np.save(tmp_path / "expected.npy", QueryEncoder.load(REFERENCE).encode(golden))
    (tmp_path / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    script = """
import json, sys
import numpy as np
import edgeleaf
assert edgeleaf.__file__.startswith(sys.prefix), edgeleaf.__file__
texts = json.load(open("golden.json", encoding="utf-8"))
vectors = edgeleaf.QueryEncoder.load("mpnet").encode(texts)
expected = np.load("expected.npy")
others = sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))
print(json.dumps({"texts": len(texts), "equal": int((vectors == expected).all(axis=1).sum()), "imported": others}))
"""
    done = subprocess.run([str(python), "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["texts"] == found["equal"] == len(golden) > 70
    assert not {"edgeleaf_mpnet", "typer", "rich", "huggingface_hub"} & set(found["imported"])
    assert student.stat().st_size < 30e6


def own(dist: Path) -> None:
    """Write edgeleaf's own wheel, built beside the checkout."""
    source = dist.parent / "source"
    for part in ("edgeleaf", "pyproject.toml", "README.md", "LICENSE"):
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, source_of(source) / part)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(source)]
    subprocess.run(command, cwd=dist.parent, check=True, capture_output=True)


def source_of(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def empty_environment(folder: Path) -> Path:
    """Make an environment that holds numpy and onnxruntime, those of this one, and nothing else; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    for package in (np, onnxruntime):
        place = Path(str(package.__file__)).parent
        for part in (place, place.with_name(f"{place.name}.libs")):
            if part.exists():
                (site / part.name).symlink_to(part)
    return folder / "bin" / "python"


def with_certificate(bundle: Path, *, ok: bool) -> Path:
    """Change the first verdict of a bundle's certificate, and the manifest's hash of it."""
    certificate = json.loads((bundle / CERTIFICATE).read_text(encoding="utf-8"))
    certificate["verdicts"][0]["ok"] = ok
    (bundle / CERTIFICATE).write_text(json.dumps(certificate), encoding="utf-8")
    replace(Manifest.read(bundle), files=hash_files(bundle)).write(bundle)
    return bundle


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_code_points")
def test_a_wheel_may_take_another_input(tiny_bundle: Path, tmp_path: Path) -> None:
    made = ship_wheel(tiny_bundle, output=tmp_path, name="bytes", keep_texts=True, takes="utf8")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path)
    encoder = QueryEncoder.load(tmp_path / "edgeleaf_bytes")
    assert encoder.input == "utf8"
    texts = ["lost parcel", "👩‍👩‍👧‍👦"]
    np.testing.assert_array_equal(encoder.encode(texts), QueryEncoder.load(tiny_bundle).encode(texts))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--format", "wheel", "--keep-texts", "--version", "2.1"], 0, ""),
        (["--name", "x"], 2, "edgeleaf: --name and --version are a wheel's: add --format wheel\n"),
        (["--version", "1.0"], 2, "edgeleaf: --name and --version are a wheel's: add --format wheel\n"),
        (["--format", "wheel", "--keep-texts", "--version", "v"], 2, 'edgeleaf: the version is "v"; one such as 1.0, '),
        (["--format", "egg"], 2, "edgeleaf: Invalid value for '--format': "),
    ],
)
def test_the_command_line(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    from edgeleaf.cli.main import main

    monkeypatch.setattr(sys, "argv", ["edgeleaf", "ship", str(tiny_bundle), "-o", str(tmp_path / "dist"), *arguments])
    try:
        main()
        status: object = 0
    except SystemExit as stopped:
        status = stopped.code
    found = capsys.readouterr()
    assert (status, found.err[: len(said)]) == (code, said)
    assert found.err.count("\n") == (0 if code == 0 else 1)
    made = sorted(path.name for path in (tmp_path / "dist").glob("*"))
    assert made == (["edgeleaf_tiny-2.1-py3-none-any.whl"] if code == 0 else [])
    assert code or found.out.startswith(f"{tmp_path}/dist/edgeleaf_tiny-2.1-py3-none-any.whl: ")


def test_the_public_function_is_there() -> None:
    assert edgeleaf.ship_wheel is ship_wheel
