"""edgeleaf.latency.runner: turns, budgets, failures, on tiny adapters in fresh processes. No claims about time."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from edgeleaf.errors import EdgeleafError
from edgeleaf.latency import process as latency_process
from edgeleaf.latency import worker as latency_worker
from edgeleaf.latency.process import System, started
from edgeleaf.latency.runner import Plan, steps_of, take_turns

WORKER = latency_worker.__file__
NODE_WORKER = Path(__file__).parent.parent.parent / "bench" / "peers" / "worker.mjs"
ADAPTER = """
import numpy as np
from pathlib import Path
def load(path, *, threads, prompt, noise=0.0):
    print("a library that prints to standard output")
    def encode(texts):
        with Path(path).open("a") as calls:
            calls.write("".join(f"{prompt}{text}\\n" for text in texts))
        return np.array([[len(prompt + text), threads + noise] for text in texts], dtype=np.float64)
    return encode
"""
NODE_ADAPTER = """
export async function load(path, { threads, prompt }) {
  console.log("a library that prints to standard output");
  return async (texts) => ({ data: texts.flatMap((text) => [prompt.length + text.length, threads]), dim: 2 });
}
"""
TEXTS = {"2": ["a b", "c d"], "3": ["e f g"]}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.py"
    path.write_text(textwrap.dedent(ADAPTER))
    return path


def system(name: str, adapter: Path, **changes: object) -> System:
    command = (sys.executable, "-P", WORKER, str(adapter))
    return System(name, name.title(), command, str(adapter.parent / f"{name}.calls"), **changes)  # type: ignore[arg-type]


def test_repeats_are_shared_out_among_sessions_and_visits() -> None:
    def passes(**changes: int) -> list[list[int]]:
        return Plan(threads=(1,), texts=TEXTS, **changes).passes()  # type: ignore[arg-type]

    assert passes(repeats=100, sessions=2, visits=5) == [[10] * 5, [10] * 5]
    assert passes(repeats=5, sessions=2, visits=5) == [[1, 1, 1], [1, 1]]
    assert passes(repeats=1, sessions=3, visits=5) == [[1]]
    assert sum(map(sum, passes(repeats=23, sessions=3, visits=4))) == 23


@pytest.mark.slow
def test_every_system_is_timed_on_every_length_and_thread_count(adapter: Path) -> None:
    systems = [system("one", adapter, prompt="> "), system("two", adapter, options={"noise": 0.5})]
    plan = Plan(
        threads=(1, 2), texts=TEXTS, mixed=["x", "y y", "z z z"], batch_sizes=(2,), repeats=5, visits=2, batch_visits=2
    )
    done: list[int] = []
    records = take_turns(systems, plan, advance=done.append)
    assert [(entry["system"], entry["threads"]) for entry in records] == [
        (n, t) for t in (1, 2) for n in ("one", "two")
    ]
    for entry in records:
        assert [len(length["times_ms"]) for length in entry["lengths"]] == [5, 5]
        assert len(entry["cold_ms"]) == len(entry["load_ms"]) == len(entry["peak_rss_mb"]) == plan.sessions
        assert [sum(length["visits"]) for length in entry["lengths"]] == [5, 5]
        assert len(entry["batches"][0]["queries_per_s"]) == plan.sessions * plan.batch_visits
        assert all(cold >= load for cold, load in zip(entry["cold_ms"], entry["load_ms"], strict=True))
        assert entry["dim"] == 2
    assert sum(done) == steps_of(systems, plan)
    calls = (adapter.parent / "one.calls").read_text().splitlines()
    assert set(calls) == {"> a b", "> c d", "> e f g", "> x", "> y y", "> z z z"}


@pytest.mark.slow
def test_turns_are_in_random_order_and_the_same_for_the_same_seed(adapter: Path) -> None:
    def order(seed: int) -> list[str]:
        log = adapter.parent / "shared.calls"
        log.unlink(missing_ok=True)
        systems = [System(str(n), str(n), system("x", adapter).command, str(log), prompt=f"{n} ") for n in range(3)]
        take_turns(systems, Plan(threads=(1,), texts={"1": ["t"]}, repeats=8, sessions=1, visits=8, seed=seed))
        return log.read_text().splitlines()

    assert order(1) == order(1) != order(2)


def test_vectors_come_back_as_they_are_and_the_budget_reaches_the_adapter(adapter: Path) -> None:
    with started(system("one", adapter, prompt=">", options={"noise": 0.25}), threads=2) as worker:
        assert worker.load("abc")["dim"] == 2
        vectors = worker.vectors(["", "abcd"], 2)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1.0, 2.25], [5.0, 2.25]]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_a_worker_gets_no_more_processors_than_threads(adapter: Path) -> None:
    before = os.sched_getaffinity(0)
    with started(system("one", adapter), threads=1) as worker:
        worker.load("abc")
        assert len(os.sched_getaffinity(worker._process.pid)) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_like_this", "No module named 'nothing_like_this'"),
        ("def load(path, *, threads, prompt): raise OSError('the file is gone')", "the file is gone"),
        ("def load(path, *, threads): ...", "unexpected keyword argument 'prompt'"),
        ("import os; os._exit(3)", "it said nothing"),
        (
            "import atexit, sys\natexit.register(print, 'bye', file=sys.stderr)\nraise ValueError('no such slot')",
            "no such slot",
        ),
    ],
)
def test_a_worker_that_fails_is_one_line_with_its_reason(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "adapter.py").write_text(code)
    plan = Plan(threads=(1,), texts=TEXTS, repeats=1)
    with pytest.raises(EdgeleafError, match=f"^timing One with 1 threads failed: .*{message}") as caught:
        take_turns([system("one", tmp_path / "adapter.py")], plan)
    assert "\n" not in str(caught.value)


def test_one_that_fails_midway_is_dropped_and_the_others_go_on(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(
        textwrap.dedent("""
        import numpy as np
        def load(path, *, threads, prompt):
            calls = []
            def encode(texts):
                calls.append(texts)
                if len(calls) > 6:
                    raise MemoryError("no more room")
                return np.ones((len(texts), 2))
            return encode
        """)
    )
    dropped: dict[str, str] = {}
    systems = [system("one", adapter), system("two", tmp_path / "fragile.py")]
    records = take_turns(systems, Plan(threads=(1,), texts=TEXTS, repeats=20), dropped=dropped)
    assert [entry["system"] for entry in records] == ["one"]
    assert [len(length["times_ms"]) for length in records[0]["lengths"]] == [20, 20]
    assert list(dropped) == ["two"] and "no more room" in dropped["two"]


def test_one_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_process, "PATIENCE_S", 0.5)
    (tmp_path / "adapter.py").write_text("import time\ndef load(path, *, threads, prompt): time.sleep(60)")
    with pytest.raises(EdgeleafError, match="timing One with 1 threads failed"):
        take_turns([system("one", tmp_path / "adapter.py")], Plan(threads=(1,), texts=TEXTS, repeats=1))


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_nodes_worker_answers_as_pythons_does(tmp_path: Path, adapter: Path) -> None:
    (tmp_path / "adapter.mjs").write_text(NODE_ADAPTER)
    node = System(
        "node",
        "Node",
        ("node", str(NODE_WORKER), str(tmp_path / "adapter.mjs")),
        "",
        prompt=">",
        environment={"BENCH_MODULES": str(tmp_path)},
    )
    plan = Plan(threads=(1,), texts=TEXTS, mixed=["x", "y y"], batch_sizes=(2,), repeats=3)
    records = take_turns([node, system("python", adapter)], plan)
    assert records[0].keys() == records[1].keys()
    assert [len(length["times_ms"]) for length in records[0]["lengths"]] == [3, 3]
    assert all(value is None or value > 1 for value in records[0]["peak_rss_mb"])
    with started(node, threads=2) as worker:
        worker.load("abc")
        assert worker.vectors(["", "abcd"], 2).tolist() == [[1, 2], [5, 2]]
