"""The lines of docs/deploy.md, run as they stand: in Python environments of their own, in Node, in Chromium."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from edgeleaf import __version__
from edgeleaf.pipeline.wheel import ship_wheel
from tests.conftest import REFERENCE, needs
from tests.hub import TOKEN, stand_in
from tests.pipeline.test_wheel import empty_environment, own
from tests.test_npm import packed, project
from tests.test_web import chromium, web

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
__all__ = ["chromium", "packed", "project", "web"]


def block(heading: str) -> str:
    """The lines of the fenced block below a heading."""
    found = re.search(rf"(?ms)^## {heading}\n.*?^```\w+\n(.*?)^```", PAGE)
    assert found, heading
    return found[1]


def test_each_way_is_a_few_lines() -> None:
    headings = re.findall(r"(?m)^## (.*)$", PAGE)
    ways = [heading for heading in headings if not heading.startswith("Size")]
    assert len(ways) == 7
    assert all(len(block(way).splitlines()) <= 5 for way in ways)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``dist``, as ``make wheels`` fills it, and the reference student where it is in the repository."""
    folder = tmp_path_factory.mktemp("deploy")
    own(folder / "dist")
    ship_wheel(REFERENCE, output=folder / "dist", keep_texts=True)
    (folder / "export").symlink_to(ROOT / "export")
    return folder


def commands(folder: Path) -> dict[str, str]:
    """Variables with which ``pip`` and ``python`` are those of an empty environment, and ``edgeleaf`` this checkout's.

    pip installs only what it is given: numpy and onnxruntime are there, and no index is in reach but the test's own.
    """
    python = empty_environment(folder / "v")
    tools = {
        "pip": f'exec "{sys.executable}" -m pip --python "{python}" --disable-pip-version-check "$@"',
        "edgeleaf": f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m edgeleaf.cli "$@"',
    }
    (own_tools := folder / "tools").mkdir()  # pip puts an edgeleaf of its own beside Python, which lacks typer
    for name, line in tools.items():
        script = own_tools / name
        script.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        script.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    path = os.pathsep.join([str(own_tools), str(python.parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "PIP_NO_DEPS": "1"}


def shell(lines: str, folder: Path, variables: dict[str, str]) -> str:
    command = ["bash", "-euo", "pipefail", "-c", lines]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_python_service(dist: Path, tmp_path: Path) -> None:
    lines = block("A Python service")
    assert f"edgeleaf-{__version__}-" in lines
    assert shell(lines, dist, commands(tmp_path) | {"PIP_NO_INDEX": "1"}).endswith("(1, 768)\n")


@pytest.fixture
def index(dist: Path) -> Iterator[tuple[str, Path]]:
    """A package index by PEP 503 of what lies in ``dist/upload``: its address, and that folder."""
    upload = dist / "upload"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Nothing to standard error."""

        def do_GET(self) -> None:
            if self.path != "/simple/edgeleaf-support/":
                super().do_GET()
                return
            wheels = sorted(upload.glob("edgeleaf_support-*.whl"))
            links = (
                f'<a href="/{wheel.name}#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}">{wheel.name}</a>'
                for wheel in wheels
            )
            body = f"<!doctype html><body>{''.join(links)}</body>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(upload)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple", upload
    finally:
        server.shutdown()
        server.server_close()


def test_a_private_index(dist: Path, index: tuple[str, Path], tmp_path: Path) -> None:
    variables = commands(tmp_path) | {"INDEX": index[0]}
    shell(f"pip install --quiet --no-index {dist}/dist/edgeleaf-{__version__}-py3-none-any.whl", dist, variables)
    assert shell(block("A private index"), dist, variables).endswith("(1, 768)\n")
    assert "\nedgeleaf_support-1.2" in f"\n{next(index[1].iterdir()).name}"


def test_the_hub(dist: Path, tmp_path: Path) -> None:
    needs("huggingface_hub", "onnx")
    with stand_in() as hub:
        variables = commands(tmp_path) | {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
        }
        python = tmp_path / "v" / "bin" / "python"
        python.unlink()  # that of the tests, which has huggingface_hub
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        said = shell(block("The hub"), dist, variables)
    assert said.splitlines()[0].startswith(f"{hub.url}/acme/queries/commit/")
    assert said.endswith("(1, 768)\n")


@pytest.mark.slow
def test_a_node_service(project: Path) -> None:
    (project / "service.mjs").write_text(block("A Node service"), encoding="utf-8")
    if not (project / "export").exists():
        (project / "export").symlink_to(ROOT / "export")
    done = subprocess.run(["node", "service.mjs"], cwd=project, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "768\n"), done.stderr


def test_a_browser(web: Path, chromium: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.js").write_text(block("A browser"), encoding="utf-8")
    script = """
        import { startChromium } from "./command.mjs";
        import { PAGE, serve } from "./server.mjs";
        const [bundle, folder] = process.argv.slice(1);
        const browser = await startChromium();
        const server = await serve({ ...PAGE, "/pack/": bundle, "/test/": folder }, { isolated: false });
        const page = await browser.newPage();
        const said = [];
        page.on("console", (message) => said.push(message.text()));
        page.on("pageerror", (error) => said.push(error.message));
        await page.goto(new URL("/page/blank.html", server.url).href);
        await page.evaluate(() => import("/test/lines.js"));
        await browser.close();
        server.close();
        console.log(said.join("\\n"));
    """
    command = ["node", "--input-type=module", "--eval", script, str(REFERENCE), str(tmp_path)]
    done = subprocess.run(command, cwd=web, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "768\n"), done.stderr


def test_what_make_runs_is_in_the_makefile_and_in_ci() -> None:
    """The lines for Go, Rust and C++ run what `make languages` has built and run; those of Java are in its tests."""
    lines = block("A Go or Rust service").splitlines()
    assert lines[0].startswith("make languages ")
    script = (ROOT / "examples" / "languages.py").read_text(encoding="utf-8")
    names = ('"onnxruntime" / "lib"', "libonnxruntime.so", "ORT_DYLIB_PATH", '"encode-go"', '"encode-cpp"', '"rust"')
    assert [name for name in names if name not in script] == []
    continuous = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\nmake languages" in continuous and "\nmake android" in continuous
    place = ROOT / "android_demo" / "edgeleaf" / "src" / "test" / "java" / "io" / "github" / "edgeleaf"
    java = (place / "JavaUseTest.java").read_text(encoding="utf-8")
    assert [line for line in block("A phone").splitlines() if line.strip() not in java] == []
