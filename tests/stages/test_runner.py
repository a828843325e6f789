"""Stages: done once for the same inputs, resumed when killed, made again when an input changes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeleaf.errors import BundleError
from edgeleaf.stages import code, graph, runner
from edgeleaf.stages.lock import locked
from edgeleaf.stages.runner import LOCK, VECTOR_CACHE, Stages
from edgeleaf.stages.student import train_student
from edgeleaf.stages.texts import collect_texts
from edgeleaf.stages.vectors import write_vectors

ROOT = Path(__file__).parents[2]


def write(count: list[str], name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        count.append(name)
        (folder / "out.txt").write_text(name)

    return make


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    ran: list[str] = []
    for _ in range(2):
        folder = Stages(tmp_path).run("a", {"x": 1}, write(ran, "a"))
    assert ran == ["a"]
    assert (folder / "out.txt").read_text() == "a"


def test_force_runs_it_again(tmp_path: Path) -> None:
    ran: list[str] = []
    Stages(tmp_path).run("a", {"x": 1}, write(ran, "a"))
    with Stages(tmp_path, force=True) as stages:
        stages.run("a", {"x": 1}, write(ran, "a"))
    assert ran == ["a", "a"]


def test_a_run_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model"), Stages(tmp_path / "work"):
        raise ValueError("no model")
    assert not list(tmp_path.iterdir())


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Stages(tmp_path), pytest.raises(BundleError, match="another run is at work there"), Stages(tmp_path):
        pass
    with Stages(tmp_path):
        pass


def test_a_changed_input_runs_it_and_what_follows(tmp_path: Path) -> None:
    ran: list[str] = []
    for x in (1, 1, 2):
        stages = Stages(tmp_path)
        a = stages.run("a", {"x": x}, write(ran, "a"))
        stages.run("b", {"a": a}, write(ran, "b"))
    assert ran == ["a", "b", "a", "b"]


def test_a_killed_stage_finds_what_it_left(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).run("a", {"x": 1}, killed)
    assert not (tmp_path / "a").exists()

    seen: list[bool] = []
    Stages(tmp_path).run("a", {"x": 1}, lambda folder: seen.append((folder / "half.txt").exists()))
    assert seen == [True]


def test_a_killed_stage_of_other_inputs_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "half.txt").write_text("half")
    seen: list[bool] = []
    Stages(tmp_path).run("a", {"x": 2}, lambda folder: seen.append((folder / "half.txt").exists()))
    assert seen == [False]


def test_force_leaves_the_vector_cache(tmp_path: Path) -> None:
    ran: list[str] = []
    with Stages(tmp_path) as stages:
        stages.run("a", {"x": 1}, write(ran, "a"))
    (tmp_path / VECTOR_CACHE / "space").mkdir(parents=True)
    (tmp_path / VECTOR_CACHE / "space" / "00000.keys.npy").write_bytes(b"hours of work")
    with Stages(tmp_path, force=True) as stages:
        assert not (tmp_path / "a").exists()
        stages.run("a", {"x": 1}, write(ran, "a"))
    assert ran == ["a", "a"]
    assert (tmp_path / VECTOR_CACHE / "space" / "00000.keys.npy").read_bytes() == b"hours of work"


# One process at a time

HOLD = """
import sys
from pathlib import Path
from edgeleaf.errors import BundleError
from edgeleaf.stages.lock import locked
try:
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
        if len(sys.argv) > 2:
            (Path(sys.argv[1]) / sys.argv[2]).touch()
except BundleError as error:
    print(error, flush=True)
"""


def hold(folder: Path, *leaves: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", HOLD, str(folder), *leaves]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_processes_never_work_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    first = hold(folder, "result")
    assert first_line(first) == "held"
    assert (folder / LOCK).is_file()
    second = hold(folder)
    assert first_line(second) == f"{folder}: another run is at work there; wait for it to end"
    second.communicate("\n")
    assert (folder / LOCK).is_file()  # who was refused removes nothing
    first.communicate("\n")
    assert sorted(path.name for path in folder.iterdir()) == [LOCK, "result"]  # where work was done, the file stays
    third = hold(folder)
    assert first_line(third) == "held"
    third.kill()
    third.communicate()
    with locked(folder):  # a killed process holds nothing
        pass


def test_whoever_waited_for_a_file_that_was_removed_takes_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file is opened, then its holder removes it and exits: a lock on a removed file protects nothing."""
    from edgeleaf.stages import lock

    folder, taken = tmp_path / "work", lock._lock
    files: list[int] = []

    def slow(descriptor: int) -> None:
        if not files:
            shutil.rmtree(folder)
        files.append(descriptor)
        taken(descriptor)

    monkeypatch.setattr(lock, "_lock", slow)
    with locked(folder):
        assert len(files) == 2
        other = hold(folder)
        assert "another run is at work there" in first_line(other)
        other.communicate("\n")


def test_a_lock_file_that_cannot_be_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("in use, as Windows says of an open file")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with Stages(tmp_path / "work"):
            pass
    assert [path.name for path in (tmp_path / "work").iterdir()] == [LOCK]
    with Stages(tmp_path / "work"):
        pass


# A stage is made again when the code that makes it has changed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of edgeleaf's sources, which stages look at."""
    copy = tmp_path / "elsewhere" / "edgeleaf"
    shutil.copytree(ROOT / "edgeleaf", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(runner, "Sources", lambda: code.Sources(copy.parent))
    return copy


def pipeline(work: Path) -> list[str]:
    """Run stages that would call edgeleaf's own functions; return the names of those that ran."""
    ran: list[str] = []
    stages = Stages(work)

    def make(folder: Path) -> None:
        ran.append("student")
        _ = train_student

    texts = stages.run("texts", {}, lambda folder: (ran.append("texts"), collect_texts))
    vectors = stages.run("vectors", {"texts": texts}, lambda folder: (ran.append("vectors"), write_vectors))
    student = stages.run("student", {"vectors": vectors}, make)
    exported = stages.run("graph", {"student": student}, lambda folder: (ran.append("graph"), graph.export_graph))
    stages.run("fused", {"graph": exported}, lambda folder: (ran.append("fused"), graph.fuse_graph))
    return ran


ALL = ["texts", "vectors", "student", "graph", "fused"]


@pytest.mark.parametrize(
    ("module", "again"),
    [
        ("texts/pieces.py", ALL),
        ("teachers/cache.py", ALL[1:]),
        ("training/optimizer.py", ALL[2:]),
        ("graph/export.py", ALL[3:]),
        ("graph/tokenizers/wordpiece.py", ALL[4:]),
        ("progress.py", []),
        ("latency/report.py", []),
    ],
)
def test_changed_code_makes_its_stage_again_and_what_follows(
    module: str, again: list[str], package: Path, tmp_path: Path
) -> None:
    assert pipeline(tmp_path / "work") == ALL
    assert pipeline(tmp_path / "work") == []
    source = package / module
    source.write_text(source.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    assert pipeline(tmp_path / "work") == again


def test_a_changed_function_beside_others_makes_its_own_stage_again(package: Path, tmp_path: Path) -> None:
    assert pipeline(tmp_path / "work") == ALL
    source = package / "stages" / "graph.py"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace('progress.say("fuse: tokenizer into the graph")', "pass"), encoding="utf-8")
    assert source.read_text(encoding="utf-8") != text
    assert pipeline(tmp_path / "work") == ["fused"]


def test_the_code_is_the_same_wherever_it_lies_and_however_its_lines_end(package: Path) -> None:
    here = code.Sources().digest(collect_texts)
    assert code.Sources(package.parent).digest(collect_texts) == here
    for path in package.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert code.Sources(package.parent).digest(collect_texts) == here


def test_another_version_of_what_makes_a_result_makes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    installed = metadata.version
    assert pipeline(tmp_path) == ALL
    for part, again in (("torch", ALL[2:]), ("rich", [])):
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", lambda name, part=part: "9.9" if name == part else installed(name))
            assert pipeline(tmp_path) == again
        pipeline(tmp_path)
