"""Two processes train as one does with a batch twice as large, and each continues from the other's checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgeleaf
from edgeleaf.distributed.team import Team, follows, team
from edgeleaf.errors import ClusterError
from edgeleaf.training.batches import LengthBatchSampler
from tests.conftest import needs, tiny_texts

ROOT = Path(__file__).parents[2]
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_USE_CPU")
TOLERANCE = 0.002
"""Relative. The sums over a batch are the same numbers added in another order, in bfloat16 where the processor has it,
and AdamW divides small differences by small numbers. Another batch anywhere moves a loss by 0.02 and more."""
STOP = 13
CHECKPOINT = 5


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


def recipe_of(folder: Path, *, batch: int, student: Path, teacher: Path) -> Path:
    path = folder / f"batch-{batch}.toml"
    path.write_text(
        f"""
name = "two"
[teacher]
model = "{teacher}"
max_length = 48
[student]
model = "{student}"
max_length = 48
[texts]
held_out_queries = 30
held_out_documents = 20
[[texts.sources]]
files = ["queries.txt"]
kind = "query"
[[texts.sources]]
files = ["documents.txt"]
kind = "document"
[objective]
epochs = 2.0
batch_size = {batch}
learning_rate = 1e-3
checkpoint_steps = {CHECKPOINT}
axes = 40
""",
        encoding="utf-8",
    )
    return path


def launch(*arguments: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Start processes as a user would, by `accelerate launch`; again if another program took the port meanwhile."""
    for _ in range(3):
        done = _launched(*arguments, processes=processes)
        if "EADDRINUSE" not in done.stderr and "address already in use" not in done.stderr.lower():
            break
    return done


def _launched(*arguments: object, processes: int) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--multi_gpu", "--num_processes", processes, "--num_machines", 1, "--main_process_port", port]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", *arguments]
    return subprocess.run(
        list(map(str, command)),
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,  # two processes on cores that others use, too
    )


def curve(output: Path) -> list[dict[str, float]]:
    file = output.with_name(f"{output.name}.work") / "student" / "student" / "training.json"
    found: list[dict[str, float]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def assert_alike(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert [sorted(entry) for entry in one] == [sorted(entry) for entry in other]
    for mine, yours in zip(one, other, strict=True):
        assert mine["step"] == yours["step"]
        for key in mine.keys() - {"step"}:
            assert mine[key] == pytest.approx(yours[key], rel=TOLERANCE, abs=1e-6), (mine, yours)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_doubled_batch_and_continue_from_each_other(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    needs("accelerate", "torch")
    from edgeleaf.training import trainer
    from tests.distributed.launched import stop_after

    texts = tiny_texts(377, low=3, high=12, seed=3)  # the last batch is not full, and its halves differ by one text
    (tmp_path / "queries.txt").write_text("\n".join(texts[:250]) + "\n")
    (tmp_path / "documents.txt").write_text("\n".join(texts[250:]) + "\n")
    half, whole = (recipe_of(tmp_path, batch=size, student=tiny_student, teacher=tiny_teacher) for size in (16, 32))
    edgeleaf.distill(whole, output=tmp_path / "one")
    expected = curve(tmp_path / "one")
    losses = [entry["loss"] for entry in expected if "loss" in entry]
    assert max(losses) - min(losses) > 20 * TOLERANCE * max(losses), losses  # a curve, not a line

    def prepared(name: str) -> Path:  # texts and vectors of the first run serve the others
        work = tmp_path / "one.work"
        shutil.copytree(work, tmp_path / f"{name}.work", ignore=shutil.ignore_patterns("student", ".lock"))
        return tmp_path / name

    two = launch("edgeleaf", "distill", half, "-o", prepared("two"))
    assert two.returncode == 0, two.stderr
    assert two.stdout.split() == [str(tmp_path / "two.work" / "student" / "student")]  # the main process alone speaks
    assert_alike(curve(tmp_path / "two"), expected)

    stopped = launch("tests.distributed.launched", half, prepared("two-one"), STOP)
    checkpoints = tmp_path / "two-one.work" / "student.partial" / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-5"], stopped
    assert [path.name for path in checkpoints.rglob("rng_state*")] == ["rng_state_0.pth"] * 2  # the main one's
    edgeleaf.distill(whole, output=tmp_path / "two-one")
    assert_alike(curve(tmp_path / "two-one"), expected)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Steps, "on_step_end", stop_after(STOP))
        with pytest.raises(SystemExit):
            edgeleaf.distill(whole, output=prepared("one-two"))
    again = launch("edgeleaf", "distill", half, "-o", tmp_path / "one-two")
    assert again.returncode == 0, again.stderr
    assert "student: done before" not in again.stderr
    assert_alike(curve(tmp_path / "one-two"), expected)
    resumed = [entry for entry in curve(tmp_path / "one-two") if entry["step"] <= 10]
    assert resumed == [entry for entry in expected if entry["step"] <= 10]  # taken from the checkpoint, to the last bit


@pytest.mark.slow
def test_an_error_of_the_main_process_is_one_line_and_ends_the_others(tiny_teacher: Path, tmp_path: Path) -> None:
    needs("accelerate", "torch")
    recipe = recipe_of(tmp_path, batch=16, student=tiny_teacher, teacher=tiny_teacher)
    for name in ("queries", "documents"):
        (tmp_path / f"{name}.txt").write_text("only one\n")
    done = launch("edgeleaf", "distill", recipe, "-o", tmp_path / "out")
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgeleaf: ")]
    assert done.returncode != 0
    assert len([line for line in lines if "held out" in line or "texts" in line]) >= 1, done.stderr
    assert not [line for line in lines if "fault in edgeleaf" in line]


def test_batches_do_not_depend_on_the_number_of_processes() -> None:
    lengths = np.random.default_rng(0).integers(1, 90, 1001).tolist()

    def batches(processes: int) -> list[list[int]]:
        sampler = LengthBatchSampler([0] * 1001, lengths, batch_size=16, drop_last=False, seed=1, processes=processes)
        sampler.set_epoch(2)
        parts = list(sampler)
        assert len(parts) == len(sampler)
        return [[row for part in parts[i : i + processes] for row in part] for i in range(0, len(parts), processes)]

    assert batches(1) == batches(2) == batches(4)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK is 2 and WORLD_SIZE 2; a rank below the size is needed"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, r"RANK is 'x' and WORLD_SIZE '2'; whole numbers are needed"),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, r"started one.*put --multi_gpu in place of --cpu"),
    ],
)
def test_what_a_launcher_says_wrongly_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ClusterError, match=message):
        team()


def test_a_process_alone_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert team() == Team(0, 1)
    assert team().main
    assert not follows()
    find: Callable[[], int] = lambda: 3  # noqa: E731
    assert team().agree_on(find) == 3
    monkeypatch.setenv("RANK", "1")
    assert not follows()  # a rank without a size is no launcher's
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert follows()
