"""edgeleaf doctor: what it reports about a machine, and what it never reveals. Runs in the base install."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from packaging.requirements import Requirement

import edgeleaf
from edgeleaf import quiet
from edgeleaf.bundle.machine import processor_kind
from edgeleaf.cli import doctor
from tests.conftest import needs

SECRET = "hf_NeverPrintThisToken"
SECRETS = {
    **dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "PIP_INDEX_URL"), SECRET),
    **dict.fromkeys(("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED"), SECRET),
}
"""Where secrets lie, and switches that hold what is no value of theirs."""


def ask(*arguments: str, before: str = "", **variables: str) -> str:
    """Return what ``edgeleaf doctor`` prints, in a process of its own that may run some lines before."""
    script = (
        f"import sys\n{before}\nfrom edgeleaf.cli import main\nsys.argv = ['edgeleaf', 'doctor', *sys.argv[1:]]\nmain()"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def home(folder: Path) -> dict[str, str]:
    """The variables of a user whose home this is."""
    return {
        "HOME": str(folder),
        "USERPROFILE": str(folder),
        **dict.fromkeys(("USER", "LOGNAME", "USERNAME"), folder.name),
    }


def test_it_says_what_is_installed_and_what_this_machine_is() -> None:
    found = json.loads(ask("--json"))
    assert found["edgeleaf"] == edgeleaf.__version__
    assert found["python"] == platform.python_version()
    assert found["platform"] == platform.platform()
    assert found["processor"]["kind"] == processor_kind()
    assert found["onnxruntime"] == {
        "version": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
        "error": None,
    }
    for name in ("numpy", "rich", "typer"):
        assert found["packages"][name] == importlib.metadata.version(name)
    assert [cache["name"] for cache in found["caches"]] == ["edgeleaf", "Hugging Face hub"]
    assert [report["package"] for report in found["reports"]] == [part.package for part in quiet.PARTS]


def test_the_table_says_the_same() -> None:
    table = ask()
    for said in (
        *(edgeleaf.__version__, platform.python_version(), processor_kind(), onnxruntime.__version__),
        *("CPUExecutionProvider", f"numpy {importlib.metadata.version('numpy')}", "extra distill", "telemetry, ray"),
    ):
        assert said in " ".join(table.replace("│", " ").split())


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_no_secret_and_no_name_is_printed(tmp_path: Path, arguments: list[str]) -> None:
    (own := tmp_path / "jane-doe").mkdir()
    printed = ask(*arguments, **SECRETS, **home(own), EDGELEAF_CACHE=str(tmp_path / "disk" / "jane-doe" / "cache"))
    assert SECRET not in printed
    assert "jane-doe" not in printed
    assert "~" in printed
    assert "USER" in printed


def test_caches_are_measured(tmp_path: Path) -> None:
    (blobs := tmp_path / "hub" / "blobs").mkdir(parents=True)
    (blobs / "weights").write_bytes(b"0" * 2_500_000)
    with suppress(OSError):  # Windows lets few users make links
        (tmp_path / "hub" / "snapshot").symlink_to(blobs / "weights")
    given = {"HF_HUB_CACHE": str(tmp_path / "hub"), "EDGELEAF_CACHE": str(tmp_path / "none")}
    own, hub = json.loads(ask("--json", **given))["caches"]
    assert (own["path"], own["exists"], own["size_mb"]) == (doctor.without_name(str(tmp_path / "none")), False, None)
    assert (hub["path"], hub["exists"], hub["size_mb"]) == (doctor.without_name(str(tmp_path / "hub")), True, 2.5)
    table = ask(**given)
    assert "2.5 MB" in table
    assert "not there" in table


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"XDG_CACHE_HOME": "/data/cache"},
        {"XDG_CACHE_HOME": "/data/cache", "HF_HOME": "~/models"},
        {"HF_HOME": "$PLACE/models", "PLACE": "/data"},
        {"HF_HOME": "/data/models", "HUGGINGFACE_HUB_CACHE": "/data/older"},
        {"HUGGINGFACE_HUB_CACHE": "/data/older", "HF_HUB_CACHE": "~/newer"},
    ],
)
def test_the_hub_keeps_its_models_there(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    needs("huggingface_hub")
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", "from huggingface_hub.constants import HF_HUB_CACHE as folder; print(folder)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert doctor.hub_cache() == Path(done.stdout.strip())


def reports(**variables: str) -> dict[str, dict[str, Any]]:
    return {report["package"]: report for report in json.loads(ask("--json", **variables))["reports"]}


def test_telemetry_is_off_unless_it_was_asked_for() -> None:
    quietly = {part.variable: "" for part in quiet.PARTS}
    assert not any(report["may_report"] for report in reports(**quietly).values())
    assert "off" in ask(**quietly)
    loud = reports(**quietly | {"ORT_DISABLE_TELEMETRY": "0"})
    assert [name for name, report in loud.items() if report["may_report"]] == ["onnxruntime"]
    assert loud["onnxruntime"]["switch"] == "ORT_DISABLE_TELEMETRY=0"
    table = " ".join(ask(**quietly | {"ORT_DISABLE_TELEMETRY": "0"}).split())
    assert "may report to its maker: ORT_DISABLE_TELEMETRY=0 asks for it" in table


def test_a_package_that_is_not_there_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NONE_REPORTS", "1")
    part = quiet.Part("no_such_package", "NONE_REPORTS", "0", frozenset({"1"}))
    found = doctor._report(part)
    assert (found["installed"], found["may_report"]) == (False, False)
    assert doctor._report_line(found) == "none, it is not installed"


def test_on_windows_another_switch_keeps_onnxruntime_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert doctor._report(quiet.ONNXRUNTIME)["switch"] == "disable_telemetry_events()"


@pytest.mark.skipif(sys.platform == "win32", reason="a home of Linux")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jane/.cache/edgeleaf", "~/.cache/edgeleaf"),
        ("/home/jane", "~"),
        ("/home/janet/.cache", "/home/janet/.cache"),
        ("/scratch/jane/hub", "/scratch/USER/hub"),
        ("/srv/home/jane/x", "/srv/home/USER/x"),
        ("D:\\jane\\hub", "D:\\USER\\hub"),
        ("libx.so: cannot open /home/jane/v/libx.so: no such file", "libx.so: cannot open ~/v/libx.so: no such file"),
        ("janes.onnx", "janes.onnx"),
    ],
)
def test_paths_are_shown_without_the_name(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane"))
    for name in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert doctor.without_name(text) == shown


def test_a_home_at_the_root_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path(Path.cwd().anchor))
    for name in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert doctor.without_name("/data/cache") == "/data/cache"


def test_an_onnxruntime_that_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    broken = """
from importlib.abc import MetaPathFinder
import os
class Broken(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            raise ImportError(f"libort.so in {os.environ['HOME']}/v: cannot open\\nshared object")
sys.meta_path.insert(0, Broken())
"""
    (own := tmp_path / "jane-doe").mkdir()
    found = json.loads(ask("--json", before=broken, **home(own)))["onnxruntime"]
    assert found["version"] is None
    assert found["error"].startswith("libort.so in ~")
    assert "cannot be loaded: libort.so in" in ask(before=broken, **home(own))


METADATA = [
    "numpy>=1.26",
    'torch>=2.6; extra == "distill"',
    'tokenizers>=0.21; extra == "distill"',
    'mteb>=2.1; extra == "mteb"',
    "edgeleaf[distill]; extra == 'mteb'",
    'edgeleaf[distill,mteb]; extra == "dev"',
    'ruff; extra == "dev"',
]


def test_extras_bring_those_inside_them() -> None:
    assert doctor._requirements(METADATA, "") == {"numpy": "1.26"}
    assert doctor._requirements(METADATA, "distill") == {"torch": "2.6", "tokenizers": "0.21"}
    assert set(doctor._requirements(METADATA, "mteb")) == {"torch", "tokenizers", "mteb"}
    assert set(doctor._requirements(METADATA, "dev")) == {"torch", "tokenizers", "mteb", "ruff"}


def test_every_requirement_of_the_installed_package_is_understood() -> None:
    facts = importlib.metadata.metadata("edgeleaf")
    lines = [Requirement(line) for line in facts.get_all("Requires-Dist") or []]
    extras = ["", *(facts.get_all("Provides-Extra") or [])]
    found = {name for extra in extras for name in doctor._requirements(list(map(str, lines)), extra)}
    assert found == {line.name for line in lines} - {"edgeleaf"}
    assert set(json.loads(ask("--json"))["extras"]) == {doctor.BASE, *extras} - {""}


@pytest.mark.parametrize(
    ("versions", "state", "lacking"),
    [
        ({"torch": "2.6.0+cpu", "tokenizers": "0.21"}, "complete", []),
        ({"torch": "3", "tokenizers": "0.22.2rc1"}, "complete", []),
        ({"torch": "2.10"}, "incomplete", ["tokenizers>=0.21"]),
        ({"torch": "2.5.1", "tokenizers": "1"}, "incomplete", ["torch>=2.6 (2.5.1 is installed)"]),
        ({"numpy": "2"}, "absent", ["torch>=2.6", "tokenizers>=0.21"]),
    ],
)
def test_how_much_of_an_extra_is_there(versions: dict[str, str], state: str, lacking: list[str]) -> None:
    found = doctor._extra(doctor._requirements(METADATA, "distill"), versions)
    assert found == {"state": state, "lacking": lacking}


def test_a_folder_that_nobody_installed() -> None:
    nowhere = """
import importlib.metadata as metadata
def missing(name, found=metadata.metadata):
    if name == "edgeleaf":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.metadata = missing
"""
    found = json.loads(ask("--json", before=nowhere))
    assert found["extras"] == {}
    assert found["packages"]["numpy"] == importlib.metadata.version("numpy")
    assert "not installed, it runs from a folder; extras are not known" in ask(before=nowhere)
