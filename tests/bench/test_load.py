"""bench.load: which servers are put under load, a short load of our own, the page; no test asserts a time."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.load import report, run
from bench.peers.artefacts import MAKERS
from bench.peers.environments import Environments
from edgeleaf import QueryEncoder
from tests.conftest import REFERENCE


def test_every_server_has_an_environment_and_an_artefact(tmp_path: Path) -> None:
    servers, environments = run.read_servers(tmp_path)
    assert len({server.name for server in servers}) == len(servers)
    assert {server.environment for server in servers} | {"gguf-build"} == {*environments.pip}
    for server in servers:
        assert server.artefact in {"bundle", "student", *MAKERS}
        assert "TEXT" in server.body.values()


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    """This environment in the place of the server's own."""
    (tmp_path / "edgeleaf").symlink_to(sys.prefix)
    return Environments(tmp_path, {"edgeleaf": []}, {})


def test_a_short_load(environments: Environments, tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    server = run.read_servers(tmp_path)[0][0]
    texts = run.texts_of(REFERENCE, 50)
    bodies = tmp_path / "bodies"
    bodies.write_text("".join(run.body_of(server, text) + "\n" for text in texts), encoding="utf-8")
    with run.started(server, environments, REFERENCE, tmp_path / "log") as running:
        found = running.load(bodies, 8, 1)
        vector = running.ask(texts[0])
    assert found["requests"] > 0 and not any(found["errors"].values())
    assert 0 < found["outside_encoder_ms_a_request"] < found["processor_ms_a_request"]
    assert found["memory_mb"]["most"] > 10
    np.testing.assert_array_equal(np.array(vector, np.float32), QueryEncoder.load(REFERENCE).encode(texts[:1])[0])


def test_a_server_that_does_not_start_is_named(environments: Environments, tmp_path: Path) -> None:
    server = run.read_servers(tmp_path)[0][0]
    with pytest.raises(run.InputError, match="edgeleaf did not answer: .*no such file or folder"):
        run.Running(server, environments, tmp_path / "nowhere", tmp_path / "log")


def test_the_page(tmp_path: Path) -> None:
    def load(connections: int, speed: float) -> dict[str, Any]:
        times = {"p50_ms": 1.0, "p99_ms": 2.0, "processor_ms_a_request": 2.2, "outside_encoder_ms_a_request": 0.2}
        rest = {"errors": {"status": 1}, "memory_mb": {"most": 99.0, "now": 90.0}}
        return {"connections": connections, "requests_a_second": speed, **times, **rest}

    measured = {
        "machine": {"cores": 2, "processor": "X"},
        "plan": {"turns": 2, "seconds": 1.0, "connections": [1, 32]},
        "noise": {"fixed_work_ms": [1.0], "others_share": 0.0, "stolen_share": 0.0},
        "absent": {"other": "no such package"},
        "servers": [
            {"name": name, "title": name.upper(), "note": "", "cosine": {"mean": 0.99, "least": 0.9}}
            for name in ("edgeleaf", "slow")
        ],
        "turns": [
            {"server": name, "cold_s": 1.5, "loads": [load(1, speed), load(32, speed)]}
            for name, speed in (("edgeleaf", 300.0), ("slow", 100.0), ("edgeleaf", 500.0), ("slow", 120.0))
        ],
    }
    (tmp_path / "results.json").write_text(json.dumps(measured))
    text = report.report(measured)
    assert "| EDGELEAF | 400 | 1.0 | 2.0 | 2.20 |" in text
    assert text.index("| EDGELEAF | 400") < text.index("| SLOW | 110")
    assert "| EDGELEAF | 0.990 (0.900) | 1.5 | 99 | 4 |  |" in text
    assert "| 1 | 2.00 | 0.20 | 10 |" in text and "other (no such package)" in text
    report.plot(measured, tmp_path / "load.png")
    assert (tmp_path / "load.png").stat().st_size > 5000
