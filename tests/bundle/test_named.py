"""Names: a path first, then an installed bundle, then the hub; a hostile package is still only data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeleaf import QueryEncoder, progress
from edgeleaf.bundle import hub
from edgeleaf.bundle.manifest import MANIFEST, QUERY_ENCODER
from edgeleaf.bundle.named import find, installed_bundle
from edgeleaf.errors import BundleError, MissingExtra
from edgeleaf.extras import NEEDS
from tests.conftest import needs

CODE = "raise SystemExit('code of the package was run')\n"


def install(site: Path, package: str, *, points: dict[str, str], bundle: Path | None = None) -> Path:
    """Lay a package out as pip does; its code, which no data package has, would end the process if it ran."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[edgeleaf.bundles]\n{lines}", encoding="utf-8")
    folder = site / package
    if bundle is not None:
        shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("student", "onnx"))
        (folder / "__init__.py").write_text(CODE, encoding="utf-8")
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty site-packages on the path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_an_installed_bundle_loads_by_its_name(site: Path, bundle: Path) -> None:
    install(site, "edgeleaf_my_queries", points={"my-queries": "edgeleaf_my_queries"}, bundle=bundle)
    expected = QueryEncoder.load(bundle).encode(["lost parcel", ""])
    for name in ("my-queries", "My_Queries", "my.queries"):
        np.testing.assert_array_equal(QueryEncoder.load(name).encode(["lost parcel", ""]), expected)
    assert "edgeleaf_my_queries" not in sys.modules


def fail(bundle: Path) -> None:
    """Write a certificate that reports FAILED."""
    certificate = json.loads((bundle / "certificate.json").read_text(encoding="utf-8"))
    (bundle / "certificate.json").write_text(json.dumps(certificate | {"passed": False}), encoding="utf-8")


@pytest.mark.parametrize("command", ["encode", "serve"])
def test_a_failed_certificate_is_pointed_out_whatever_the_bundle_is_named_by(
    site: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from edgeleaf.cli import serve
    from edgeleaf.cli.use import encode_command

    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    if command == "serve":
        needs(*NEEDS["serve"])
        monkeypatch.setattr("edgeleaf.server.run.serve", lambda *given: None)

    def use(name: str) -> str:
        """Use a bundle; return the name that the message has."""
        if command == "serve":
            serve.serve_command([f"mine={name}"])
            return "mine"
        encode_command(name, ["lost parcel"])
        return name

    folder = install(site, "edgeleaf_my_queries", points={"my-queries": "edgeleaf_my_queries"}, bundle=bundle)
    use("my-queries")
    assert said == []
    fail(folder)
    cached = shutil.copytree(folder, site.parent / "cached")
    monkeypatch.setattr(hub, "fetch", lambda name, revision: cached)
    places = {"my-queries": folder, "acme/queries": cached, str(folder): folder, str(folder / QUERY_ENCODER): folder}
    for name, place in places.items():
        said.clear()
        shown = use(name)
        assert said == [f"{shown}: its certificate reports FAILED; see {place / 'certificate.json'}"]
    QueryEncoder.load((folder / QUERY_ENCODER).read_bytes())


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "x" * 300, "", "a\x1b[31mb"])
def test_a_name_that_is_none_costs_one_line(name: str) -> None:
    with pytest.raises(BundleError) as caught:
        QueryEncoder.load(name)
    assert str(caught.value).isprintable()


def test_commands_take_names_of_installed_bundles(
    site: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeleaf.cli.use import encode_command
    from edgeleaf.server.models import open_served

    install(site, "edgeleaf_my_queries", points={"my-queries": "edgeleaf_my_queries"}, bundle=bundle)
    encode_command("my-queries", ["lost parcel"])
    assert json.loads(capsys.readouterr().out)["text"] == "lost parcel"
    assert list(open_served(["my-queries", "mine=my-queries"])) == ["my-queries", "mine"]
    for load in (lambda: encode_command("acme/no-such", ["a"]), lambda: open_served(["acme/no-such"])):
        with pytest.raises((BundleError, MissingExtra), match="acme/no-such.*hub"):
            load()


def test_a_path_comes_before_an_installed_bundle(
    site: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "edgeleaf_mine", points={"mine": "edgeleaf_mine"}, bundle=bundle)
    assert find("mine") == site / "edgeleaf_mine"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert find("mine") == Path("mine")
    with pytest.raises(BundleError, match=f"^mine is not a bundle: it has no {MANIFEST}"):
        QueryEncoder.load("mine")


def test_only_a_string_is_a_name(site: Path, bundle: Path) -> None:
    install(site, "edgeleaf_mine", points={"mine": "edgeleaf_mine"}, bundle=bundle)
    with pytest.raises(BundleError, match="^mine: no such file or folder"):
        QueryEncoder.load(Path("mine"))


@pytest.mark.parametrize("value", ["../../etc", "/etc", "edgeleaf_x:run", "a b", "edgeleaf_x.y", "é", "x" * 200, ".."])
def test_an_entry_point_that_is_no_folder_is_refused(site: Path, bundle: Path, value: str) -> None:
    install(site, "edgeleaf_x", points={"x": value}, bundle=bundle)
    with pytest.raises(BundleError, match="its entry point x is .* not the name of a folder$"):
        QueryEncoder.load("x")


def test_two_packages_of_one_name_are_named(site: Path, bundle: Path) -> None:
    install(site, "edgeleaf_one", points={"twice": "edgeleaf_one"}, bundle=bundle)
    install(site, "edgeleaf_two", points={"Twice": "edgeleaf_two"}, bundle=bundle)
    with pytest.raises(BundleError, match="^twice is in several installed packages: edgeleaf_one, edgeleaf_two; "):
        QueryEncoder.load("twice")


def test_a_package_without_its_files_is_named(site: Path) -> None:
    install(site, "edgeleaf_gone", points={"gone": "edgeleaf_gone"})
    with pytest.raises(BundleError, match=rf"^edgeleaf_gone says that it holds the bundle gone, .* no {MANIFEST}"):
        installed_bundle("gone")


def test_a_changed_file_of_an_installed_bundle_is_refused(site: Path, bundle: Path) -> None:
    folder = install(site, "edgeleaf_changed", points={"changed": "edgeleaf_changed"}, bundle=bundle)
    (folder / QUERY_ENCODER).write_bytes((bundle / QUERY_ENCODER).read_bytes() + b"\0")
    with pytest.raises(BundleError, match="damaged: sha256"):
        QueryEncoder.load("changed")


def test_a_link_out_of_an_installed_bundle_is_refused(site: Path, bundle: Path) -> None:
    folder = install(site, "edgeleaf_link", points={"link": "edgeleaf_link"}, bundle=bundle)
    (folder / QUERY_ENCODER).unlink()
    try:
        (folder / QUERY_ENCODER).symlink_to((bundle / QUERY_ENCODER).resolve())
    except OSError:
        pytest.skip("links need a right that this user has not")
    with pytest.raises(BundleError, match="is a link; put the file itself there"):
        QueryEncoder.load("link")


@pytest.mark.parametrize("name", ["no-such-name", "./no", "/no/such", "", "a/b/c", "a b", "-x"])
def test_an_unknown_name_is_one_line(name: str) -> None:
    with pytest.raises(BundleError, match="no such file or folder|is not a bundle|is needed") as caught:
        QueryEncoder.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", ["main", 3])
def test_a_revision_is_for_the_hub_only(bundle: Path, revision: object) -> None:
    for path in (bundle, str(bundle), bundle.joinpath(QUERY_ENCODER).read_bytes()):
        with pytest.raises(BundleError, match="revision"):
            QueryEncoder.load(path, revision=revision)  # type: ignore[arg-type]


def test_without_huggingface_hub_the_extra_is_named(tmp_path: Path) -> None:
    script = """
import json, sys
from importlib.abc import MetaPathFinder
class Closed(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "huggingface_hub":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Closed())
import edgeleaf
try:
    edgeleaf.QueryEncoder.load("acme/queries")
except edgeleaf.MissingExtra as error:
    print(json.dumps(str(error)))
"""
    root = Path(__file__).parent.parent.parent
    variables = {"PYTHONPATH": str(root)} if (root / "edgeleaf").is_dir() else {}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=os.environ | variables, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == (
        "acme/queries: no such file or folder; to fetch a bundle of that name from the hub, install huggingface_hub: "
        "pip install 'edgeleaf[hub]'"
    ), done.stderr
    assert issubclass(MissingExtra, Exception)
