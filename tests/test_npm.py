"""The npm package edgeleaf, packed and unpacked as npm does it: what is in it, and that it encodes and searches."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import QueryEncoder, __version__
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.long_texts import METADATA_LONG_TEXTS
from edgeleaf.bundle.manifest import MANIFEST, QUERY_ENCODER, Manifest
from edgeleaf.bundle.session import session
from edgeleaf.search.index import Index
from tests.test_web import web, write_index

PACKAGE = Path(__file__).parent.parent / "web"
__all__ = ["web"]
PACKED = {
    "LICENSE",
    "README.md",
    "browser.js",
    "documents.js",
    "encoder.js",
    "errors.js",
    "files.js",
    "index.d.ts",
    "node.js",
    "package.json",
    "quiet.js",
    "texts.js",
    "vectors.js",
}
MOST_BYTES = 60_000


@pytest.fixture(scope="module")
def packed(web: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive that ``npm publish`` would send."""
    folder = tmp_path_factory.mktemp("packed")
    command = ["npm", "pack", str(PACKAGE), "--pack-destination", str(folder), "--silent"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return next(folder.glob("*.tgz"))


@pytest.fixture(scope="module")
def project(packed: Path, web: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has installed the archive, and onnxruntime-node beside it."""
    folder = tmp_path_factory.mktemp("project")
    modules = folder / "node_modules"
    with tarfile.open(packed) as archive:
        archive.extractall(modules, filter="data")
    (modules / "package").rename(modules / "edgeleaf")
    for needed in (web / "node_modules").iterdir():
        if needed.name.startswith("onnxruntime-") and needed.name != "onnxruntime-web":
            (modules / needed.name).symlink_to(needed)
    (folder / "package.json").write_text('{"type": "module"}\n', encoding="utf-8")
    return folder


def node(project: Path, script: str, *arguments: object, code: int = 0) -> Any:
    """Run a module; return the JSON that it prints last."""
    (project / "run.mjs").write_text(script, encoding="utf-8")
    command = ["node", "run.mjs", *map(str, arguments)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_archive_holds_the_package_and_nothing_else(packed: Path) -> None:
    assert packed.name == f"edgeleaf-{__version__}.tgz"
    with tarfile.open(packed) as archive:
        files = {member.name.partition("/")[2]: member for member in archive.getmembers() if member.isfile()}
    assert files.keys() == PACKED
    assert sum(member.size for member in files.values()) < MOST_BYTES
    assert all(member.mode & 0o111 == 0 for member in files.values())


def test_the_package_says_what_it_is() -> None:
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert package["version"] == __version__
    assert list(package["exports"]["."]) == ["types", "node", "default"]  # the first that fits is taken
    assert package["peerDependencies"].keys() == package["peerDependenciesMeta"].keys()
    assert not {"dependencies", "scripts", "bin"} & package.keys()
    root = PACKAGE.parent / "LICENSE"
    assert (PACKAGE / "LICENSE").read_bytes() == root.read_bytes()


def test_both_entries_and_the_types_have_the_same_names() -> None:
    names = {}
    for entry in ("node.js", "browser.js", "index.d.ts"):
        text = (PACKAGE / entry).read_text(encoding="utf-8")
        names[entry] = set(re.findall(r"(?m)^export (?:class|interface|type) (\w+)", text))
        names[entry] |= {name for line in re.findall(r"(?m)^export \{ (.*) \}", text) for name in line.split(", ")}
    assert names["node.js"] == names["browser.js"] == {"QueryEncoder", "DocumentIndex", "EdgeleafError"}
    assert names["node.js"] <= names["index.d.ts"]


GOLDEN = """
import { readFileSync, writeFileSync } from "node:fs";
import { QueryEncoder } from "edgeleaf";
const [bundle, texts, output] = process.argv.slice(2);
const encoder = await QueryEncoder.load(bundle, { threads: 1 });
const all = JSON.parse(readFileSync(texts, "utf8"));
const together = await encoder.encode(all);
const alone = [];
for (const text of all) alone.push(...(await encoder.encode([text])));
const empty = await encoder.encode([]);
const bytes_of = (vector) => Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
writeFileSync(output, Buffer.concat([...together, ...alone].map(bytes_of)));
const { space, dim, window, input, bytes } = encoder;
await encoder.close();
const quiet = process.env.ORT_DISABLE_TELEMETRY;
console.log(JSON.stringify({ space, dim, window, input, bytes, empty: empty.length, quiet }));
"""


@pytest.mark.parametrize("takes", ["text", "utf8"])
def test_it_gives_the_vectors_of_python_to_the_last_bit(
    project: Path, tiny_bundle: Path, request: pytest.FixtureRequest, tmp_path: Path, takes: str
) -> None:
    bundle = tiny_bundle if takes == "text" else request.getfixturevalue("utf8_bundle")
    texts = [entry["text"] for entry in read_golden(bundle)] + ["word " * 30_000, "a\0b", "x" * 50_000, "é. " * 9000]
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    found = node(project, GOLDEN, bundle, tmp_path / "texts.json", tmp_path / "vectors")
    encoder = QueryEncoder.load(bundle)
    expected = encoder.encode(texts)
    together, alone = np.fromfile(tmp_path / "vectors", np.float32).reshape(2, len(texts), encoder.dim)
    np.testing.assert_array_equal(together, expected)
    np.testing.assert_array_equal(alone, expected)
    size = (bundle / QUERY_ENCODER).stat().st_size
    assert found["space"]["weights_sha256"] == encoder.space.weights_sha256
    facts = {name: found[name] for name in ("dim", "window", "input", "bytes", "empty", "quiet")}
    assert facts == {
        "dim": encoder.dim,
        "window": encoder.window,
        "input": takes,
        "bytes": size,
        "empty": 0,
        "quiet": "1",
    }


def test_long_texts_are_shortened_as_in_python(project: Path, tiny_bundle: Path) -> None:
    """The same text goes to the graph, for texts of every kind that the rule knows."""
    from edgeleaf.bundle.long_texts import LongTexts

    metadata = session(tiny_bundle / QUERY_ENCODER, threads=1).get_modelmeta().custom_metadata_map
    entries = [metadata[METADATA_LONG_TEXTS], "7 0", "7 0  。，"]  # of WordPiece, and of BPE and Unigram
    texts = ["word " * 30_000, "x" * 50_000, "é. " * 9000, "a,b;" * 9000, " \t\n" * 9000, "ab-" + "c" * 30_000, "short"]
    texts += ["é a b é c  d " * 9000, "an  b c" * 9000, "я éа 中文。中，文！中 अ " * 9000, "ţ. ţ" * 9000]
    (project / "given.json").write_text(json.dumps({"entries": entries, "texts": texts}))
    script = """
        import { readFileSync } from "node:fs";
        import { shortener } from "./node_modules/edgeleaf/texts.js";
        const { entries, texts } = JSON.parse(readFileSync("given.json", "utf8"));
        console.log(JSON.stringify(entries.map((entry) => texts.map(shortener(entry)))));
    """
    rules = [LongTexts.read({METADATA_LONG_TEXTS: entry}) for entry in entries]
    assert node(project, script) == [[rule.shortened(text) for text in texts] for rule in rules if rule is not None]


SEARCH = """
import { DocumentIndex, QueryEncoder } from "edgeleaf";
const [bundle, folder, text] = process.argv.slice(2);
const encoder = await QueryEncoder.load(bundle);
const index = await DocumentIndex.load(folder);
const [hits] = index.search(await encoder.encode([text]), { space: encoder.space, k: 5 });
console.log(JSON.stringify({ hits, dim: index.dim, documents: index.documents.length }));
"""


@pytest.mark.parametrize("pca_dims", [None, 8])
def test_it_finds_what_python_finds(project: Path, tiny_bundle: Path, tmp_path: Path, pca_dims: int | None) -> None:
    folder = write_index(tmp_path / "index", tiny_bundle, pca_dims=pca_dims)
    encoder, index = QueryEncoder.load(tiny_bundle), Index.load(folder)
    found = node(project, SEARCH, tiny_bundle, folder, "lost parcel stone")
    (wanted,) = index.search(encoder.encode(["lost parcel stone"]), space=encoder.space, k=5)
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in wanted]
    assert [hit["text"] for hit in found["hits"]] == [hit.text for hit in wanted]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in wanted], abs=1e-6)
    assert (found["dim"], found["documents"]) == (index.vectors.shape[1], len(index.documents))


FAIL = """
import { DocumentIndex, EdgeleafError, QueryEncoder } from "edgeleaf";
const [bundle, index, damaged, other, file] = process.argv.slice(2);
const encoder = await QueryEncoder.load(bundle);
const documents = await DocumentIndex.load(index);
const [vector] = await encoder.encode(["text"]);
const closed = await QueryEncoder.load(bundle);
await closed.close();
const tries = {
  missing: () => QueryEncoder.load("no/such/folder"),
  damaged: () => QueryEncoder.load(damaged),
  file: () => QueryEncoder.load(file),
  threads: () => QueryEncoder.load(bundle, { threads: 0 }),
  string: () => encoder.encode("one"),
  number: () => encoder.encode(["one", 2]),
  surrogate: () => encoder.encode(["\\ud800"]),
  closed: () => closed.encode(["text"]),
  index: () => DocumentIndex.load(bundle),
  space: async () => documents.search([vector], { space: other === "" ? null : JSON.parse(other) }),
  noSpace: async () => documents.search([vector], {}),
  width: async () => documents.search([vector.slice(1)], { space: encoder.space }),
  k: async () => documents.search([vector], { space: encoder.space, k: 0 }),
};
const said = {};
for (const [name, attempt] of Object.entries(tries)) {
  try {
    await attempt();
    said[name] = "nothing";
  } catch (error) {
    said[name] = `${error instanceof EdgeleafError ? "" : error.name}${error.message}`;
  }
}
const again = await encoder.encode(["text"]); // a failed call leaves the encoder as it was
console.log(JSON.stringify({ ...said, again: again.length }));
"""


def test_bad_input_costs_one_line(project: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    index = write_index(tmp_path / "index", tiny_bundle)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    shutil.copyfile(tiny_bundle / MANIFEST, damaged / MANIFEST)
    data = (tiny_bundle / QUERY_ENCODER).read_bytes()
    (damaged / QUERY_ENCODER).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (tmp_path / "none.onnx").write_bytes(b"not a model" * 500)
    space = json.dumps({**Manifest.read(tiny_bundle).space.__dict__, "pooling": "cls"})
    said = node(project, FAIL, tiny_bundle, index, damaged, space, tmp_path / "none.onnx")
    assert said.pop("again") == 1
    assert all("\n" not in line for line in said.values())
    wanted = {
        "missing": "no/such/folder/query_encoder.onnx: no such file; give a bundle folder or a fused .onnx file",
        "damaged": f"{damaged}/query_encoder.onnx: damaged: its sha256 is not the one in edgeleaf.json; ",
        "file": "the model is damaged, or no ONNX file",
        "threads": "threads is 0; a whole number from 1 is needed",
        "string": "encode got one string; an array is needed: encode([text])",
        "number": "text 1 is number; a string is needed",
        "surrogate": "text 0 holds half a surrogate pair, which is not text; ",
        "closed": "this QueryEncoder is closed; load it again",
        "index": f"{tiny_bundle}/index.json: no such file; ",
        "space": 'This model cannot search this index: the two are of different vector spaces (pooling: "cls" here, ',
        "noSpace": "search needs the space of the queries: ",
        "width": "a vector has ",
        "k": "k is 0; a whole number from 1 is needed",
    }
    assert {name: said[name][: len(line)] for name, line in wanted.items()} == wanted


def test_metadata_is_read_as_onnxruntime_reads_it(project: Path, tiny_bundle: Path) -> None:
    script = """
        import { readFileSync } from "node:fs";
        import { metadataOf } from "./node_modules/edgeleaf/files.js";
        const bytes = readFileSync(process.argv[2]);
        const cut = [];
        for (const size of [0, 1, 100, bytes.length - 1]) {
          try { cut.push(metadataOf(bytes.subarray(0, size)).size); } catch (error) { cut.push(error.message); }
        }
        console.log(JSON.stringify({ metadata: Object.fromEntries(metadataOf(bytes)), cut }));
    """
    found = node(project, script, tiny_bundle / QUERY_ENCODER)
    opened = session(tiny_bundle / QUERY_ENCODER, threads=1)
    assert found["metadata"] == opened.get_modelmeta().custom_metadata_map
    damaged = "the model is damaged, or no ONNX file"
    assert found["cut"] == [0, damaged, damaged, damaged]
