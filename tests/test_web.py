"""The bundle's file, unchanged, in onnxruntime-node and in onnxruntime-web in headless Chromium; and the page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import GOLDEN, QUERY_ENCODER, Manifest
from edgeleaf.search.index import Hit, Index
from tests import ports

WEB = Path(__file__).parent.parent / "web_demo"
EVERY_GROUP, EVERY_TEXT = 10, 200
DRIFT = 0.001
"""What the arithmetic of another runtime may change in a cosine; 0.0001 is seen."""


def lacking(what: str) -> None:
    """Skip; or fail, where EDGELEAF_REQUIRE_RUNTIMES says that every runtime is there."""
    if os.environ.get("EDGELEAF_REQUIRE_RUNTIMES") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands, their packages installed."""
    if not (shutil.which("node") and shutil.which("npm")):
        lacking("node or npm is missing; install Node.js 20 or newer, with npm")
    lock, installed = WEB / "package-lock.json", WEB / "node_modules" / ".package-lock.json"
    with FileLock(tmp_path_factory.getbasetemp().parent / "npm.lock"):  # one of pytest-xdist's workers installs
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            done = subprocess.run(["npm", "ci"], cwd=WEB, capture_output=True, text=True, timeout=600)
            if done.returncode:
                lacking(f"npm ci failed in {WEB}: {done.stderr.strip()[-500:]}")
    return WEB


@pytest.fixture(scope="session")
def chromium(web: Path) -> Path:
    """A Chromium that the commands find."""
    named = os.environ.get("CHROMIUM")
    found = shutil.which(named) if named else shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        lacking("no Chromium; install it (apt-get install chromium), or let CHROMIUM name one")
    return Path(str(found))


@pytest.fixture(scope="session")
def pack(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of the tiny bundle."""
    return write_pack(tiny_bundle, tmp_path_factory.mktemp("web") / "pack")


@pytest.fixture(scope="session")
def utf8_pack(utf8_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for its copy that takes bytes."""
    return write_pack(utf8_bundle, tmp_path_factory.mktemp("web-utf8") / "pack")


def write_pack(bundle: Path, folder: Path) -> Path:
    """Write hard texts, every tenth group of code points, and real texts if there are any."""
    hard = ports.hard_sets()
    sets = hard | {"code points": islice(hard["code points"], 0, None, EVERY_GROUP)}
    if data := os.environ.get("EDGELEAF_DATA"):
        sets |= ports.data_sets(Path(data), lambda texts: islice(texts, 0, None, EVERY_TEXT))
    return ports.write_pack(bundle, folder, sets)


def write_index(folder: Path, bundle: Path, *, pca_dims: int | None = None, **space: Any) -> Path:
    """Write an index of the golden texts, short or not, in the bundle's space but for ``space``."""
    entries = [entry for entry in read_golden(bundle) if entry["text"].strip()]
    vectors = np.array([entry["embedding"] for entry in entries], dtype=np.float32)
    documents = [(f"d{number}", entry["text"]) for number, entry in enumerate(entries)]
    whole = Index(space=replace(Manifest.read(bundle).space, **space), documents=documents, vectors=vectors)
    (whole if pca_dims is None else whole.shortened(pca_dims)).save(folder)
    return folder


def run(
    web: Path, script: str, *arguments: str | Path, code: int, chromium: str | None = None
) -> tuple[dict[str, Any], str]:
    """Run a command; return the one JSON object that it prints, and what it says on stderr."""
    command = ["node", script, *map(str, arguments)]
    environment = os.environ | ({"CHROMIUM": chromium} if chromium else {})
    done = subprocess.run(command, cwd=web, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"exit {done.returncode}: {done.stdout}\n{done.stderr}"
    return json.loads(done.stdout or "{}"), done.stderr


def check_report(report: dict[str, Any], pack: Path) -> None:
    """Check that a runtime gave every id and vector of the pack."""
    header = json.loads((pack / GOLDEN).read_text(encoding="utf-8").split("\n", 1)[0])
    counts = {file.stem: file.read_text(encoding="utf-8").count("\n") for file in (pack / "parity").iterdir()}
    assert report["parity"] == {name: {"texts": count, "mismatches": 0} for name, count in counts.items()}
    assert report["passed"]
    assert report["golden"]["texts"] == len(read_golden(pack))
    assert report["golden"]["id_mismatches"] == 0
    assert report["golden"]["cosine_min"] >= header["cosine_min"]
    assert report["golden"]["cosine_mismatches"] == 0
    assert report["golden"]["empty_batch"] is True


def test_node_gives_every_id_and_vector(web: Path, pack: Path) -> None:
    report, said = run(web, "node.mjs", pack, code=0)
    check_report(report, pack)
    assert report["runtime"].startswith("onnxruntime-node 1.")
    assert said == ""


def test_node_gives_every_id_and_vector_from_bytes(web: Path, utf8_pack: Path) -> None:
    report, said = run(web, "node.mjs", utf8_pack, code=0)
    check_report(report, utf8_pack)
    assert said == ""


def test_a_browser_gives_every_id_and_vector_from_bytes(web: Path, chromium: Path, utf8_pack: Path) -> None:
    report, _ = run(web, "browser.mjs", utf8_pack, code=0)
    check_report(report, utf8_pack)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_browser_gives_every_id_and_vector(web: Path, chromium: Path, pack: Path, threads: int) -> None:
    report, _ = run(web, "browser.mjs", pack, "--threads", str(threads), code=0)
    check_report(report, pack)
    assert report["runtime"].startswith("onnxruntime-web 1.")
    assert report["threads"] == threads
    assert report["workers"] == threads - 1
    assert report["cross_origin_isolated"] is (threads > 1)


def test_one_wrong_id_fails(web: Path, pack: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(pack, tmp_path / "pack")
    file = damaged / "parity" / "hard texts.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    lines[3]["input_ids"][1] += 1
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    report, said = run(web, "node.mjs", damaged, code=1)
    assert report["parity"]["hard texts"] == {"texts": len(lines), "mismatches": 1}
    assert sum(counts["mismatches"] for counts in report["parity"].values()) == 1
    assert json.dumps(lines[3]["text"], ensure_ascii=False) in said


def test_a_vector_of_another_text_fails(web: Path, pack: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(pack, tmp_path / "pack")
    header, *lines = [json.loads(line) for line in (pack / GOLDEN).read_text(encoding="utf-8").split("\n") if line]
    lines[-1]["embedding"] = [-value for value in lines[-1]["embedding"]]
    (damaged / GOLDEN).write_text("".join(json.dumps(line) + "\n" for line in [header, *lines]), encoding="utf-8")
    report, _ = run(web, "node.mjs", damaged, code=1)
    assert report["golden"]["cosine_min"] < -0.99
    assert report["golden"]["cosine_mismatches"] == 1


def test_bad_input_costs_one_line(web: Path, pack: Path, tmp_path: Path) -> None:
    assert run(web, "node.mjs", tmp_path / "nowhere", code=2)[1] == f"{tmp_path / 'nowhere'}: no such folder\n"
    assert f"no {QUERY_ENCODER} in it" in run(web, "node.mjs", tmp_path, code=2)[1]
    cut = shutil.copytree(pack, tmp_path / "pack")
    file = cut / "parity" / "code points.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    lines = file.read_bytes().count(b"\n") + 1
    assert run(web, "node.mjs", cut, code=2)[1] == f"code points.jsonl, line {lines}: not JSON\n"


def typeable(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " in text.strip()


def search(documents: Index, entry: dict[str, Any]) -> list[Hit]:
    """All documents of an index, nearest to a golden text's vector first."""
    query = np.array([entry["embedding"]], dtype=np.float32)
    return documents.search(query, space=documents.space, k=len(documents.documents))[0]


@pytest.mark.parametrize(("threads", "pca_dims"), [(1, None), (2, None), (1, 8)])
def test_the_page_finds_what_numpy_finds(
    web: Path, chromium: Path, tiny_bundle: Path, tmp_path: Path, threads: int, pca_dims: int | None
) -> None:
    index = write_index(tmp_path / "index", tiny_bundle, pca_dims=pca_dims)
    documents = Index.load(index)
    golden, found = max(
        ((entry, search(documents, entry)) for entry in read_golden(tiny_bundle) if typeable(entry["text"])),
        key=lambda pair: pair[1][0].score - pair[1][1].score,
    )
    assert found[0].text == golden["text"] and found[0].score - found[1].score > 2 * DRIFT, "no near tie may decide"
    wanted = {hit.id: hit.score for hit in found}
    tenth = found[9].score

    options = ("--query", golden["text"], "--threads", str(threads))
    shown, _ = run(web, "screenshot.mjs", tiny_bundle, index, *options, code=0)
    hits = shown["hits"]
    assert hits[0]["text"] == golden["text"]
    assert len({hit["id"] for hit in hits}) == 10
    for hit in hits:
        assert hit["score"] == pytest.approx(wanted[hit["id"]], abs=DRIFT)
        assert wanted[hit["id"]] > tenth - DRIFT
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert shown["encode_ms"] > 0
    assert shown["search_ms"] >= 0
    assert (shown["threads"], shown["error"], shown["foreign_requests"]) == (threads, None, [])
    assert shown["file"] == f"{(tiny_bundle / QUERY_ENCODER).stat().st_size / 1e6:.1f} MB"
    assert not shown["wider_than_the_window"]


@pytest.mark.slow
def test_the_page_never_shows_the_hits_of_another_query(
    web: Path, chromium: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Every state of the page while texts are typed, quickly and slowly, changed and cleared."""
    script = """
        import { startChromium } from "./command.mjs";
        import { serve } from "./server.mjs";
        import { pagePaths } from "./site.mjs";
        const browser = await startChromium();
        const server = await serve(pagePaths(...process.argv.slice(1)));
        const page = await browser.newPage();
        await page.goto(`${server.url}?threads=1`);
        await page.waitForSelector("body[data-state=ready]");
        await page.evaluate(() => {
          window.seen = [];
          const hits = document.querySelector("#hits");
          const ids = () => [...hits.children].map((item) => item.dataset.id).join(" ");
          new MutationObserver(() => window.seen.push([hits.dataset.query, ids()]))
            .observe(hits, { childList: true, attributes: true });
        });
        const query = page.locator("#query");
        const shown = (text) => document.querySelector("#hits").dataset.query === text;
        for (const delay of [0, 15, 40, 70]) {
          for (const text of ["lost parcel stone", "city river", "lost parcel stone"]) {
            await query.fill("");
            await query.pressSequentially(text, { delay });
            await page.waitForFunction(shown, text);
          }
        }
        const seen = await page.evaluate(() => window.seen);
        const alone = {};
        for (const text of new Set(seen.map(([text]) => text))) {
          if (!text) continue;
          await page.goto(`${server.url}?threads=1&q=${encodeURIComponent(text)}`);
          await page.waitForFunction(shown, text);
          alone[text] = await page.evaluate(() =>
            [...document.querySelectorAll("#hits li")].map((item) => item.dataset.id).join(" "));
        }
        await browser.close();
        server.close();
        console.log(JSON.stringify({ seen, alone }));
    """
    index = write_index(tmp_path / "index", tiny_bundle)
    found, _ = run(web, "--input-type=module", "--eval", script, tiny_bundle, index, code=0)
    assert len(found["seen"]) > 12
    assert len(set(found["alone"].values())) > 1  # queries differ in their hits, so a stale one would show
    for text, ids in found["seen"]:
        assert ids == found["alone"].get(text, ""), text


def test_a_cold_page_reaches_its_first_vector(web: Path, chromium: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    found, _ = run(web, "cold.mjs", tiny_bundle, "--runs", "1", code=0)
    assert found["cold_ms"] > 0
    assert (found["runs"], found["threads"]) == (1, 1)
    assert found["model_bytes"] == (tiny_bundle / QUERY_ENCODER).stat().st_size
    assert found["other_bytes"] > 5e6  # onnxruntime's WebAssembly
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged", ignore=shutil.ignore_patterns("student", "onnx"))
    with (damaged / QUERY_ENCODER).open("ab") as file:
        file.write(b"\0")
    _, said = run(web, "cold.mjs", damaged, "--runs", "1", code=2)
    assert (
        said
        == "/bundle/query_encoder.onnx: damaged: its sha256 is not the one in edgeleaf.json; copy the bundle again\n"
    )


def test_a_missing_chromium_costs_one_line(web: Path, pack: Path) -> None:
    said = run(web, "browser.mjs", pack, code=2, chromium="/nowhere/chromium")[1]
    assert said.startswith("CHROMIUM=/nowhere/chromium is not a program; install Debian's chromium")
    assert said.count("\n") == 1


def test_the_server_gives_named_files_only(web: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "in.txt").write_text("in")
    (tmp_path / "out.txt").write_text("out")
    script = """
        import { get } from "node:http";
        import { serve } from "./server.mjs";
        const { url, close } = await serve({ "/f/": `${process.argv[1]}/served` });
        const paths = ["/f/in.txt", "/f/../out.txt",
          "/f/%2e%2e%2fout.txt", "/f/..%5cout.txt", "/f/%00", "/f/%", "/", "/f/"];
        const { port } = new URL(url);
        const status = (path) =>
          new Promise((resolve) => get({ port, path }, (response) => resolve(response.statusCode)));
        const found = Object.fromEntries(await Promise.all(paths.map(async (path) => [path, await status(path)])));
        close();
        console.log(JSON.stringify(found));
    """
    found, _ = run(web, "--input-type=module", "--eval", script, tmp_path, code=0)
    assert found.pop("/f/in.txt") == 200
    assert set(found.values()) == {404}


def test_the_page_refuses_an_index_of_another_space(
    web: Path, chromium: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    shown, _ = run(web, "screenshot.mjs", tiny_bundle, write_index(tmp_path / "i", tiny_bundle, pooling="cls"), code=1)
    assert 'different vector spaces (pooling: "mean" here, "cls" in the index)' in shown["error"]
    assert shown["hits"] == []


def test_the_page_refuses_axes_that_are_not_the_vectors_own(
    web: Path, chromium: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    axes = write_index(tmp_path / "i", tiny_bundle, pca_dims=8) / "pca.npy"
    np.save(axes, np.load(axes)[:, :4].copy())
    shown, _ = run(web, "screenshot.mjs", tiny_bundle, tmp_path / "i", code=1)
    assert "The index is damaged: its axes give 4 numbers, its vectors have 8." in shown["error"]
    axes.write_bytes(b"not numpy")
    shown, _ = run(web, "screenshot.mjs", tiny_bundle, tmp_path / "i", code=1)
    assert "pca.npy is not a .npy file" in shown["error"]


def test_javascript_takes_a_missing_key_of_a_space_for_null(web: Path) -> None:
    script = """
        import { checkSpace } from "../web/documents.js";
        const space = { teacher: "t", pooling: "mean", dim: 4 };
        const says = (model, index) => { try { checkSpace(model, index); return ""; } catch (e) { return e.message; } };
        console.log(JSON.stringify({
          same: says({ ...space, eos_token: null }, { ...space, teacher: "u" }),
          other: says({ ...space, eos_token: "</s>" }, space),
        }));
    """
    report, _ = run(web, "--input-type=module", "--eval", script, code=0)
    assert report["same"] == ""
    assert 'eos_token: "</s>" here, nothing in the index' in report["other"]


def test_javascript_reads_npy_as_numpy_does(web: Path, tmp_path: Path) -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(64, 1024)
    np.save(tmp_path / "half.npy", halves)
    np.save(tmp_path / "single.npy", halves.astype(np.float32))
    np.save(tmp_path / "double.npy", halves.astype(np.float64))
    script = """
        import { readFileSync, writeFileSync } from "node:fs";
        import { readNpy } from "../web/vectors.js";
        const [folder] = process.argv.slice(1);
        for (const name of ["half", "single"]) {
          const { rows, dim, data } = readNpy(readFileSync(`${folder}/${name}.npy`));
          writeFileSync(`${folder}/${name}.${rows}.${dim}`, data);
        }
        let message;
        try { readNpy(readFileSync(`${folder}/double.npy`)); } catch (error) { message = error.message; }
        console.log(JSON.stringify({ message }));
    """
    report, _ = run(web, "--input-type=module", "--eval", script, tmp_path, code=0)
    assert report["message"].startswith("vectors.npy: a float16 or float32 matrix in C order is needed")
    for name in ("half", "single"):
        read = np.frombuffer((tmp_path / f"{name}.64.1024").read_bytes(), dtype=np.float32).reshape(64, 1024)
        np.testing.assert_array_equal(read, halves.astype(np.float32))
