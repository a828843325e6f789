"""On a cluster of this machine: the same bits as in one process, and a failure costs the shard that it hit.

The counts come from a teacher that writes down every call. Ray's processes are slow to start, so the tests share a
cluster.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgeleaf import progress
from edgeleaf.distributed.cluster import ADDRESS
from edgeleaf.distributed.engine import Cluster, RayEngine
from edgeleaf.errors import ClusterError, InputError, MissingExtra, ModelError, PlaceError
from edgeleaf.teachers.cache import teacher_vectors
from edgeleaf.texts.text import Text
from tests.conftest import needs, tiny_texts
from tests.distributed.teachers import Counting, Opener, calls, workers

ROOT = Path(__file__).parents[2]
SHARD = 8
TEXTS = [Text(text, "document") for text in tiny_texts(78, low=2, high=9, seed=7)]
SHARDS = 10


HEAD = """
import sys
from edgeleaf import quiet
quiet.silence()
import ray
small = {"num_cpus": 4, "object_store_memory": 100 << 20}
ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False, **small)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of a cluster that a process of its own has started, as `ray start --head` would."""
    needs("ray", "fsspec")
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_memory_monitor_refresh_ms": "0"}  # else other programs' memory counts
    for _ in range(3):  # Ray looks for free ports before it opens them: of two clusters that start, one may fail
        with subprocess.Popen(
            [sys.executable, "-c", HEAD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | quiet,
        ) as process:
            assert process.stdout is not None
            if address := process.stdout.readline().strip():
                yield address
                process.communicate()
                return
    pytest.fail("Ray does not start")


@pytest.fixture
def joined(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, head)


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    (tmp_path / "diary").mkdir()
    return tmp_path / "diary"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


def alone(tmp_path: Path) -> npt.NDArray[np.float16]:
    """The vectors of one process."""
    (tmp_path / "alone").mkdir()
    return teacher_vectors(TEXTS, Counting(Opener(tmp_path / "alone")), tmp_path / "alone-cache", shard=SHARD)


def on_ray(
    tmp_path: Path, opener: Opener, *, place: str | Path, cache: str = "cache", workers: int = 2
) -> npt.NDArray[np.float16]:
    where = Cluster(place=str(place), workers=workers, shard=SHARD)
    engine = RayEngine(opener, where, beside=tmp_path / "beside")
    return teacher_vectors(TEXTS, Counting(opener), tmp_path / cache, engine=engine, shard=SHARD)


def whole(place: Path) -> set[str]:
    return {path.name for path in place.rglob("*.json")}


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_vectors_are_those_of_one_process_and_whole_shards_are_not_encoded_again(
    tmp_path: Path, diary: Path, said: list[str]
) -> None:
    expected = alone(tmp_path)
    found = on_ray(tmp_path, Opener(diary), place=tmp_path / "place")
    assert found.tobytes() == expected.tobytes()
    assert f"shards: 0 found whole, {SHARDS} encoded" in said
    assert sorted(map(tuple, calls(diary))) == sorted(map(tuple, calls(tmp_path / "alone")))  # the same batches
    before = len(calls(diary))
    for path in sorted((tmp_path / "place").rglob("*.json"))[:3]:  # as if three shards had never been made
        path.unlink()
    again = on_ray(tmp_path, Opener(diary), place=tmp_path / "place", cache="another cache")
    assert again.tobytes() == expected.tobytes()
    assert f"shards: {SHARDS - 3} found whole, 3 encoded" in said
    assert len(calls(diary)) - before <= 3 * SHARD / Counting.batch_size
    assert len(whole(tmp_path / "place")) == SHARDS
    assert not list((tmp_path / "place").rglob("*.texts.jsonl"))


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_a_killed_worker_costs_its_shard(tmp_path: Path, diary: Path, said: list[str]) -> None:
    victim = TEXTS[40].text
    found = on_ray(tmp_path, Opener(diary, deadly=victim), place=tmp_path / "place")
    assert found.tobytes() == alone(tmp_path).tobytes()
    assert (tmp_path / "died").exists()
    times = Counter(text for call in calls(diary) for text in call)
    twice = {text for text, count in times.items() if count > 1}
    assert victim in twice
    assert len(twice) <= SHARD
    assert set(times.values()) <= {1, 2}
    assert f"shards: 0 found whole, {SHARDS} encoded" in said


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for minutes: how long Ray takes depends on what else the machine does."""
    for _ in range(6000):
        if done():
            return
        time.sleep(0.1)
    raise TimeoutError


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


DRIVER = """
import sys
from pathlib import Path
from tests.distributed.test_engine import on_ray
from tests.distributed.teachers import Opener
on_ray(Path(sys.argv[1]), Opener(Path(sys.argv[2]), halt=10), place=Path(sys.argv[1]) / "place")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_a_killed_driver_costs_the_shards_in_work(tmp_path: Path, diary: Path, said: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), str(diary)], env=environment, cwd=ROOT)
    wait_until(lambda: len(calls(diary)) >= 10 or driver.poll() is not None)  # at least three shards, and not all
    assert driver.poll() is None
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until(lambda: not any(map(is_running, workers(diary))))  # they end with it
    there = len(whole(tmp_path / "place"))
    assert 3 <= there < SHARDS
    found = on_ray(tmp_path, Opener(diary), place=tmp_path / "place", cache="a new cache")
    assert found.tobytes() == alone(tmp_path).tobytes()
    assert f"shards: {there} found whole, {SHARDS - there} encoded" in said
    times = Counter(text for call in calls(diary) for text in call)
    assert sum(count - 1 for count in times.values()) <= 2 * SHARD  # one shard per worker


def full_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_a_full_disk_costs_the_shards_that_it_could_not_take(tmp_path: Path, diary: Path, said: list[str]) -> None:
    for disk in full_disk(tmp_path / "disk", "256k"):
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(256 * 1024 - SHARDS * 4096 - 6 * 4096 - 8192))  # texts fit, and a few shards
        with pytest.raises(PlaceError, match=r"No space left on device; \d+ of 10 shards are missing, the others are"):
            on_ray(tmp_path, Opener(diary), place=disk / "place", workers=1)
        there, done = len(whole(disk / "place")), len(calls(diary))
        assert 0 < there < SHARDS
        assert not list(disk.rglob("*.tmp"))
        assert done <= (there + 1) * SHARD / Counting.batch_size  # one shard was encoded for nothing
        ballast.unlink()
        found = on_ray(tmp_path, Opener(diary), place=disk / "place", cache="a new cache")
        assert found.tobytes() == alone(tmp_path).tobytes()
        assert f"shards: {there} found whole, {SHARDS - there} encoded" in said


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_a_shard_that_ends_every_worker_does_not_run_for_ever(tmp_path: Path, diary: Path) -> None:
    opener = Opener(diary, deadly=TEXTS[40].text, always=True)
    with pytest.raises(
        ModelError, match=r"has ended 4 workers, as too little memory would; .*1 of 10 shards are missing"
    ):
        on_ray(tmp_path, opener, place=tmp_path / "place")
    assert len(whole(tmp_path / "place")) == SHARDS - 1


@pytest.mark.usefixtures("joined")
def test_a_worker_without_the_teacher_is_one_line(tmp_path: Path, diary: Path) -> None:
    def missing() -> Counting:
        raise ModelError("no such model on this worker")

    where = Cluster(place=str(tmp_path / "place"), workers=2, shard=SHARD)
    engine = RayEngine(missing, where, beside=tmp_path)
    message = r"no such model on this worker; 10 of 10 shards are missing, the others are kept at .*run again"
    with pytest.raises(ModelError, match=message):
        teacher_vectors(TEXTS, Counting(Opener(diary)), tmp_path / "cache", engine=engine, shard=SHARD)


@pytest.mark.usefixtures("joined")
def test_a_shard_of_another_teacher_at_the_place_is_refused(tmp_path: Path, diary: Path) -> None:
    on_ray(tmp_path, Opener(diary), place=tmp_path / "place", workers=1)
    sidecar = next((tmp_path / "place").rglob("*.json"))
    sidecar.write_text(sidecar.read_text().replace("0" * 64, "9" * 64))
    with pytest.raises(PlaceError, match=r"does not match: weights_sha256 is .*remove .*\.json and run again"):
        on_ray(tmp_path, Opener(diary), place=tmp_path / "place", cache="a new cache")


@pytest.mark.usefixtures("joined")
def test_shards_beside_the_output_are_gone_in_the_end(tmp_path: Path, diary: Path) -> None:
    engine = RayEngine(Opener(diary), Cluster(workers=1, shard=SHARD), beside=tmp_path / "beside")
    teacher_vectors(TEXTS, Counting(Opener(diary)), tmp_path / "cache", engine=engine, shard=SHARD)
    assert not list((tmp_path / "beside").rglob("*.*"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "127.0.0.1:{free}",
            r"RAY_ADDRESS: nothing answers at 127\.0\.0\.1:\d+ \(.*\); start the cluster with: ray start",
        ),
        ("no-such-host.invalid:6379", r"RAY_ADDRESS: nothing answers at no-such-host\.invalid:6379"),
        ("ray://somewhere", r"RAY_ADDRESS is 'ray://somewhere'; HOST:PORT of a cluster's head is needed"),
        ("localhost", r"RAY_ADDRESS is 'localhost'; HOST:PORT"),
        ("localhost:99999", r"RAY_ADDRESS is 'localhost:99999'; HOST:PORT"),
    ],
)
def test_an_address_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv(ADDRESS, address.format(free=unused.getsockname()[1]))
        with pytest.raises(ClusterError, match=message):
            Cluster().check()


def test_ray_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeleaf import extras

    monkeypatch.setattr(extras, "_is_there", lambda package: package != "ray")
    with pytest.raises(MissingExtra, match=r"--engine ray needs ray, not installed: pip install 'edgeleaf\[ray\]'"):
        Cluster().check()


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_numbers_below_one_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"workers is .*; a whole number from 1 is needed"):
        Cluster(workers=value)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"shard is .*; a whole number from 1 is needed"):
        Cluster(shard=value)  # type: ignore[arg-type]
