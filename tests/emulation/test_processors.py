"""Emulated processors: the same ids on each, how Python is started there, and the message if it cannot be."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from edgeleaf import progress
from edgeleaf.emulation import processors as emulation
from edgeleaf.emulation.__main__ import main
from edgeleaf.emulation.guest import ONNXRUNTIME, find_qemu
from edgeleaf.emulation.processors import PROCESSORS, Emulation
from edgeleaf.errors import EmulationError
from tests import ports

EMULATED = ("x86-64-v3", "armv8.2-dotprod")
EVERY_GROUP = 20
DRIFT = 0.05
"""What rounding may change in a cosine; on x86-64-v3 int8 products saturate besides."""


@pytest.fixture(scope="session")
def emulated() -> Emulation:
    """Set up emulation. If that fails: skip, or fail if EDGELEAF_REQUIRE_RUNTIMES says that all runtimes work."""
    try:
        return emulation.prepare(EMULATED)
    except EmulationError as error:
        if os.environ.get("EDGELEAF_REQUIRE_RUNTIMES") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def pack(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    hard = ports.hard_sets()
    sets = {**hard, "code points": islice(hard["code points"], 0, None, EVERY_GROUP)}
    return ports.write_pack(tiny_bundle, tmp_path_factory.mktemp("emulation") / "pack", sets)


@pytest.mark.slow
@pytest.mark.parametrize("processor", EMULATED)
def test_the_same_token_ids_on_another_processor(emulated: Emulation, pack: Path, processor: str) -> None:
    done = emulated.run(processor, ["-m", "edgeleaf.bundle.golden", str(pack), "--every", "2"], timeout_s=600)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["runtime"]["machine"] == PROCESSORS[processor].architecture
    assert report["golden"]["id_mismatches"] == 0
    assert report["golden"]["cosine_min"] > 1 - DRIFT
    assert set(report["parity"]) == {"hard texts", "code points"}
    assert report["parity"]["code points"]["texts"] > 500
    assert all(found["mismatches"] == 0 for found in report["parity"].values())


def test_the_guest_is_the_processor_that_was_asked_for(emulated: Emulation) -> None:
    program = "import onnxruntime; print(onnxruntime.__version__, 'asimddp' in open('/proc/cpuinfo').read())"
    done = emulated.run("armv8.2-dotprod", ["-c", program])
    assert done.stdout.split() == [ONNXRUNTIME, "True"], done.stderr
    assert done.stderr == ""
    assert emulation.missing(EMULATED) == []


# Without an emulator


@pytest.fixture(autouse=True)
def _silent_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide progress again: the command line turns it on, and other tests must not see it."""
    monkeypatch.setattr(progress, "_shown", False)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend to be Linux on x86-64 with nothing set up and nothing on PATH; return the folder that PATH names."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("EDGELEAF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A guest folder as it is laid out, without its files."""
    for folder in ("root/usr/bin", "root/lib", "packages"):
        (tmp_path / "guest" / folder).mkdir(parents=True)
    (tmp_path / "guest/root/usr/bin/python3.11").touch()
    (tmp_path / "guest/root/usr/bin/python3").symlink_to("python3.11")
    return tmp_path / "guest"


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


SOURCE = str(Path(emulation.__file__).parent.parent.parent)


def test_native_is_this_python(machine: Path) -> None:
    command = emulation.prepare(["native"]).command("native", ["-c", "1"])
    assert command == ["env", f"PYTHONPATH={SOURCE}", sys.executable, "-c", "1"]


def test_x86_64_runs_this_python_under_qemu(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(machine, "qemu-x86_64-static", "")
    monkeypatch.setenv("PYTHONPATH", "/own")
    command = emulation.prepare(["x86-64-v2"]).command("x86-64-v2", ["-m", "it"])
    assert command[-6:] == [str(machine / "qemu-x86_64-static"), "-cpu", "Nehalem", sys.executable, "-m", "it"]
    assert f"PYTHONPATH={SOURCE}:/own" in command
    assert "--unset=OPENBLAS_CORETYPE" in command


def test_an_emulator_on_the_path_comes_before_the_one_in_the_cache(machine: Path) -> None:
    cached = machine.parent / "cache/emulation/qemu"
    cached.mkdir(parents=True)
    program(cached, "qemu-aarch64-static", "")
    assert find_qemu("aarch64") == str(cached / "qemu-aarch64-static")
    program(machine, "qemu-aarch64", "")
    assert find_qemu("aarch64") == str(machine / "qemu-aarch64")


def test_aarch64_runs_its_own_python_and_sees_its_own_processor(machine: Path, guest: Path) -> None:
    command = Emulation({"aarch64": "/qemu"}, guest).command("armv8.0", ["-m", "it"])
    root = guest / "processors" / "armv8.0"
    python = str(root / "usr/bin/python3.11")
    assert command[command.index("/qemu") :] == ["/qemu", "-cpu", "cortex-a53", "-L", str(root), python, "-m", "it"]
    assert f"PYTHONPATH={guest / 'packages'}:{SOURCE}" in command
    assert {"--unset=LD_PRELOAD", "--unset=PYTHONHOME", "PYTHONNOUSERSITE=1"} <= set(command)
    assert Path(python).is_file()
    assert (root / "lib").is_dir()
    cpuinfo = (root / "proc/cpuinfo").read_text()
    assert cpuinfo.count("processor\t: ") == os.cpu_count()
    assert "CPU part\t: 0xd03\n" in cpuinfo
    assert "asimddp" not in cpuinfo


def test_a_processor_must_be_known_and_prepared(machine: Path, guest: Path) -> None:
    with pytest.raises(EmulationError, match="no processor 'armv7'; there are native, x86-64-v2, "):
        emulation.prepare(["armv7"])
    for there in (Emulation({}), Emulation({"aarch64": "/qemu"}), Emulation({"x86_64": "/qemu"}, guest)):
        with pytest.raises(EmulationError, match=r"armv9 is not set up; prepare\(\['armv9'\]\) does that"):
            there.command("armv9", [])


@pytest.mark.parametrize(
    ("system", "architecture", "processor", "says"),
    [
        ("Darwin", "arm64", "armv8.0", "armv8.0 is emulated on Linux; this is Darwin on arm64"),
        ("Linux", "aarch64", "x86-64-v3", "x86-64-v3 is emulated on Linux on x86-64; this is Linux on aarch64"),
    ],
)
def test_machines_that_cannot_emulate(
    machine: Path, monkeypatch: pytest.MonkeyPatch, system: str, architecture: str, processor: str, says: str
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    for ask in (emulation.missing, emulation.prepare):
        with pytest.raises(EmulationError, match=says):
            ask(["native", processor])
    assert emulation.missing(["native"]) == []


def test_what_is_missing(machine: Path) -> None:
    assert [line.partition(":")[0] for line in emulation.missing()] == [
        "qemu for aarch64 and x86_64",
        "Python for aarch64",
    ]
    program(machine, "qemu-x86_64", "")
    assert emulation.missing(["native", "x86-64-v3"]) == []
    assert emulation.missing(["armv8.0"])[0].startswith("qemu for aarch64: Debian package qemu-user-static")
    program(machine, "qemu-aarch64-static", "")
    assert [line.partition(":")[0] for line in emulation.missing()] == ["Python for aarch64"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "takes apt-get, which this machine lacks: use Debian, Ubuntu or a container of one"),
        (
            "echo 'W: http://host/ is out of reach' >&2; echo 'E: Unable to locate package x' >&2; exit 100",
            r"apt-get could not set up emulation \(Unable to locate package x\): check the network and apt-get's",
        ),
        ("exit 3", r"apt-get could not set up emulation \(exit status 3\): "),
    ],
)
def test_a_set_up_that_fails_is_one_line_and_leaves_nothing(
    machine: Path, script: str | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if script:
        program(machine, "apt-get", script)
    assert main(["x86-64-v3", "--", "-c", "1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(EmulationError, match=says) as raised:
        emulation.prepare(["x86-64-v3"])
    assert error == f"edgeleaf: {raised.value}"
    assert list((machine.parent / "cache/emulation").iterdir()) == []


def test_a_cache_that_cannot_be_written(machine: Path) -> None:
    (machine.parent / "cache").touch()
    with pytest.raises(EmulationError, match=r"cannot set up emulation in .*: Not a directory; set EDGELEAF_CACHE"):
        emulation.prepare(["x86-64-v3"])


def test_what_killed_set_ups_left_is_removed(machine: Path) -> None:
    cache = machine.parent / "cache/emulation"
    for name, hours in ((".fetch-old", 7), (".fetch-new", 1)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - hours * 3600,) * 2)
    with pytest.raises(EmulationError):
        emulation.prepare(["x86-64-v3"])
    assert [folder.name for folder in cache.iterdir()] == [".fetch-new"]


# The command line


def test_the_command_gives_what_python_gave(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["native", "--", "-c", "import edgeleaf, sys; print(sys.argv[1:]); sys.exit(3)", "--", "-v"]) == 3
    assert capfd.readouterr().out == "['--', '-v']\n"
    assert main(["native", "--", "-c", "import os; os.kill(os.getpid(), 9)"]) == 137


def test_the_command_says_what_is_missing(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--missing", "armv9"]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    assert main(["--setup", "native"]) == 0
    assert capsys.readouterr().out.startswith("native: set up in ")
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "name a processor: native, " in capsys.readouterr().err


def test_no_end() -> None:
    with pytest.raises(EmulationError, match=r"native: not finished after 0\.5 s"):
        Emulation({}).run("native", ["-c", "import time; time.sleep(60)"], timeout_s=0.5)
