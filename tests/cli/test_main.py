"""The command line: results on standard output, one line for an error, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.bundle.manifest import Manifest, hash_files
from edgeleaf.certify.certificate import Certificate
from edgeleaf.search.index import Index
from tests.conftest import tiny_texts, write_collection


def edgeleaf(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeleaf.cli", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_encode_prints_a_line_for_each_text(tiny_bundle: Path) -> None:
    done = edgeleaf("encode", tiny_bundle, "lost parcel", "Grüße")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines] == ["lost parcel", "Grüße"]
    expected = QueryEncoder.load(tiny_bundle).encode(["lost parcel", "Grüße"])
    assert np.allclose([line["embedding"] for line in lines], expected, atol=1e-6)
    assert done.stderr == ""


def test_encode_standard_input_to_a_file(tiny_bundle: Path, tmp_path: Path) -> None:
    done = edgeleaf("encode", tiny_bundle, "-o", tmp_path / "v.npy", "--dims", 16, stdin=b"one\ntwo\nthree\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert np.load(tmp_path / "v.npy").shape == (3, 16)


def test_info(tiny_bundle: Path) -> None:
    facts = json.loads(edgeleaf("info", tiny_bundle, "--json").stdout)
    fused = Certificate.read(tiny_bundle / "certificate.json").rung("fused")
    assert facts["space"]["dim"] == 48
    assert facts["certificate"] == {
        "passed": True,
        "failures": [],
        "cosine_mean": fused.teacher_cosine.mean,
        "overlap_at_10": fused.overlap_at_10,
    }
    table = edgeleaf("info", tiny_bundle).stdout
    assert "query_encoder.onnx" in table
    assert "PASSED" in table


def test_info_names_every_file_that_is_not_as_it_was(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "b")
    (copy / "README.md").write_text("my own words")
    assert edgeleaf("info", copy).returncode == 0
    (copy / "golden.jsonl").write_text("")
    (copy / "onnx" / "model.onnx").unlink()
    done = edgeleaf("info", copy)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "golden.jsonl: damaged: sha256" in done.stderr
    assert "onnx/model.onnx: missing" in done.stderr
    assert "README" not in done.stderr


def test_a_certificate_that_failed_is_pointed_out(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "b")
    certificate = Certificate.read(copy / "certificate.json")
    failed = replace(certificate.verdicts[0], limit=0.999, ok=False)
    (copy / "certificate.json").write_text(replace(certificate, verdicts=(failed,)).to_json())
    replace(Manifest.read(copy), files=hash_files(copy)).write(copy)
    done = edgeleaf("encode", copy, "lost parcel")
    assert (done.returncode, done.stderr) == (
        0,
        f"{copy}: its certificate reports FAILED; see {copy / 'certificate.json'}\n",
    )
    done = edgeleaf("info", copy, "--json")
    assert done.stderr.startswith(f"{copy}: its certificate reports FAILED: gate cosine_mean: 0.")
    assert json.loads(done.stdout)["certificate"]["passed"] is False
    (copy / "certificate.json").unlink()
    assert edgeleaf("encode", copy, "lost parcel").stderr == ""


@pytest.mark.slow
def test_bench_alone_leaves_the_bundle_as_it_is(tiny_bundle: Path, tmp_path: Path) -> None:
    before = (tiny_bundle / "latency.json").read_bytes()
    done = edgeleaf("bench", tiny_bundle, "--alone", "--repeats", 3, "--json", "-o", tmp_path / "report")
    report = json.loads(done.stdout)
    assert {entry["system"] for entry in report["systems"]} == {"fused"}
    assert json.loads((tmp_path / "report" / "latency.json").read_text()) == report
    assert (tiny_bundle / "latency.json").read_bytes() == before


def test_version_and_help() -> None:
    assert edgeleaf("--version").stdout.startswith("edgeleaf 0.")
    assert "run" in edgeleaf("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["encode", "none", "text"],
            "edgeleaf: none: no such file or folder; give a bundle folder",
        ),
        (["info", "none"], "edgeleaf: none: no such bundle folder; make one with: edgeleaf run RECIPE -o none"),
        (["run", "none.toml", "-o", "out"], "edgeleaf: none.toml: no such recipe"),
        (["export", "./none", "-o", "out"], "edgeleaf: no folder './none'"),
        (["check", "none"], "edgeleaf: none: no such bundle folder"),
        (["bench", "none"], "edgeleaf: none: no such bundle folder"),
        (["index", "none", "none.jsonl", "-o", "out"], "edgeleaf: none: no such bundle folder"),
        (["search", "none", "none", "text"], "edgeleaf: none: no such index folder; make one with: edgeleaf index"),
        (["export", "all-MiniLM-L6-v2", "-o", "out", "--prompt", "a", "--prompt-name", "b"], "edgeleaf: both a prompt"),
    ],
)
def test_bad_input_costs_one_line_and_exit_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = edgeleaf(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_bad_output_name_and_bad_input(tiny_bundle: Path, tmp_path: Path) -> None:
    done = edgeleaf("encode", tiny_bundle, "x", "-o", tmp_path / "v.txt")
    assert (done.returncode, "give a name that ends in it" in done.stderr) == (2, True)
    done = edgeleaf("encode", tiny_bundle, stdin=b"\xff\xfe")
    assert (done.returncode, done.stderr) == (2, "edgeleaf: standard input is not UTF-8 at byte 0\n")


def test_standard_input_that_is_empty_has_blank_lines_or_is_asked_for(tiny_bundle: Path) -> None:
    done = edgeleaf("encode", tiny_bundle, stdin=b"")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "edgeleaf: no text given; name texts, or pipe them in, one per line\n"
    for arguments in ((), ("-",)):
        done = edgeleaf("encode", tiny_bundle, *arguments, stdin=b"one\n\ntwo\n")
        assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["one", "", "two"]
    assert "blank lines included" in " ".join(edgeleaf("encode", "--help").stdout.replace("│", " ").split())


@pytest.mark.slow
def test_a_failed_gate_exits_1_and_names_it(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "b")
    manifest = json.loads((copy / "edgeleaf.json").read_text())
    manifest["gates"]["overlap_at_10"] = 0.99
    (copy / "edgeleaf.json").write_text(json.dumps(manifest))
    done = edgeleaf("check", copy)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("edgeleaf: gate overlap_at_10: 0.")
    assert done.stdout.splitlines()[-1].startswith("nothing was written; -o DIR writes certificate.json")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.slow
def test_check_of_collections(tiny_bundle: Path, tmp_path: Path) -> None:
    copy, collection = shutil.copytree(tiny_bundle, tmp_path / "b"), write_collection(tmp_path / "mine")
    manifest = json.loads((copy / "edgeleaf.json").read_text())
    manifest["gates"]["quantization_ndcg_loss"] = -1
    (copy / "edgeleaf.json").write_text(json.dumps(manifest))
    done = edgeleaf("check", copy, "--collection", collection)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("edgeleaf: gate quantization_ndcg_loss: ")
    assert "mine, 25 queries" in done.stdout
    assert "symmetric, documents by" in done.stdout
    done = edgeleaf("check", copy, "--collection", collection, "--collection", tmp_path / "none")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"edgeleaf: {tmp_path}/none: no such folder; a collection has corpus.jsonl")


def test_a_reader_that_goes_away_is_no_error(tiny_bundle: Path) -> None:
    command = f"{sys.executable} -m edgeleaf.cli encode {tiny_bundle} | true; echo ${{PIPESTATUS[2]}}"
    done = subprocess.run(["bash", "-c", f"yes | head -n 400 | {command}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_a_reader_of_a_table_that_goes_away_is_no_error(tiny_bundle: Path) -> None:
    command = f"{sys.executable} -m edgeleaf.cli info {tiny_bundle} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


@pytest.mark.slow
def test_index_and_search(tiny_bundle: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    texts = tiny_texts(40, low=8, high=14, seed=21)
    corpus.write_text("".join(json.dumps({"_id": f"d{i}", "title": "", "text": t}) + "\n" for i, t in enumerate(texts)))
    done = edgeleaf("index", tiny_bundle, corpus, "-o", tmp_path / "index")
    assert (done.returncode, "40 documents" in done.stdout) == (0, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "index"]
    lines = edgeleaf("search", tiny_bundle, tmp_path / "index", *texts[:10], "-k", 5, "--json").stdout.splitlines()
    found = [[hit["id"] for hit in json.loads(line)["hits"]] for line in lines]
    index = Index.load(tmp_path / "index")
    scores = QueryEncoder.load(tiny_bundle).encode(texts[:10]) @ np.asarray(index.vectors, dtype=np.float32).T
    assert found == [[f"d{row}" for row in rows[:5]] for rows in np.argsort(-scores, axis=1, kind="stable")]
    assert "d" in edgeleaf("search", tiny_bundle, tmp_path / "index", "lost parcel").stdout
    done = edgeleaf("index", tiny_bundle, corpus, "-o", tmp_path / "index")
    assert (done.returncode, "; 0 encoded, 40 unchanged, 0 deleted" in done.stdout) == (0, True)
    assert edgeleaf("index", tiny_bundle, corpus, "-o", tmp_path / "index", "--force").returncode == 0
    done = edgeleaf("index", tiny_bundle, corpus, "-o", tmp_path / "short", "--pca", 4)
    assert (done.returncode, f"{len(index.documents)} documents, 4 numbers each" in done.stdout) == (0, True)
    assert Index.load(tmp_path / "short").vectors.shape == (len(index.documents), 4)
    assert "d" in edgeleaf("search", tiny_bundle, tmp_path / "short", "lost parcel").stdout
    width = index.space.dim
    done = edgeleaf("index", tiny_bundle, corpus, "-o", tmp_path / "long", "--pca", width)
    assert (done.returncode, f"can be shortened to 1 to {width - 1}, not to {width}" in done.stderr) == (2, True)
    assert not (tmp_path / "long").exists()


def test_what_cannot_be_indexed_is_said_with_the_path_as_given(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.jsonl").write_text('{"a": 1}\n')
    Path("mine").mkdir()
    Path("mine/file").write_text("mine")
    encoder = tiny_bundle / "query_encoder.onnx"
    for bundle, documents, output, message in (
        (tiny_bundle, "none.jsonl", "i", "none.jsonl: no such file"),
        (tiny_bundle, "c.jsonl", "i", "c.jsonl, line 1: needed a string under 'text', found keys: a"),
        (
            tiny_bundle,
            "c.jsonl",
            "mine",
            "mine exists and is not an index; give a new folder, or one that edgeleaf wrote",
        ),
        (encoder, "c.jsonl", "i", f"{encoder} is a file; a bundle folder is needed, one that holds edgeleaf.json"),
    ):
        done = edgeleaf("index", bundle, documents, "-o", output)
        assert (done.returncode, done.stderr) == (2, f"edgeleaf: {message}\n")


def test_searching_with_another_space_exits_2(tiny_bundle: Path, tmp_path: Path) -> None:
    encoder = QueryEncoder.load(tiny_bundle)
    other = replace(encoder.space, weights_sha256="0" * 64)
    Index(space=other, documents=[("a", "b")], vectors=encoder.encode(["b"])).save(tmp_path / "index")
    done = edgeleaf("search", tiny_bundle, tmp_path / "index", "lost parcel")
    assert (done.returncode, "cannot search an index of the space" in done.stderr) == (2, True)


@pytest.mark.slow
def test_fuse_and_tokenize(tiny_bundle: Path, tmp_path: Path) -> None:
    """The bundle's unfused encoder and tokenizer give a file with the same vectors."""
    tokenizer, output = tiny_bundle / "student/tokenizer.json", tmp_path / "own.onnx"
    parts = (tokenizer, tiny_bundle / "onnx/model_qint8.onnx")
    done = edgeleaf("fuse", *parts, "-o", output, "--prompt", "query: ", "--max-length", 48)
    assert done.returncode == 0, done.stderr
    assert "text: string[batch] to embedding: float32[batch, 48], unit norm" in done.stdout
    texts = ["lost parcel", "graph error [SEP]"]
    ours, shipped = (QueryEncoder.load(path).encode(texts) for path in (output, tiny_bundle))
    assert np.allclose(ours, shipped, atol=1e-6)

    done = edgeleaf("tokenize", output, "--tokenizer", tokenizer, *texts)
    assert (done.returncode, done.stderr) == (0, "")
    assert "'lost parcel': " in done.stdout
    assert " [CLS]  " in done.stdout
    line = json.loads(edgeleaf("tokenize", tiny_bundle, "--json", "-", stdin=b"lost parcel\n").stdout)
    assert line["equal"]
    assert line["tokens"][0] == "[CLS]"

    settings = json.loads(tokenizer.read_text(encoding="utf-8"))
    settings["model"]["vocab"] |= {"lost": 5, settings["model"]["unk_token"]: 6}
    (tmp_path / "other.json").write_text(json.dumps(settings), encoding="utf-8")
    done = edgeleaf("tokenize", output, "lost", "--tokenizer", tmp_path / "other.json")
    assert done.returncode == 1
    assert "`tokenizers` gives other ids, 'lost'" in done.stderr


def test_fuse_refuses_in_one_line_and_leaves_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    settings = json.loads((tiny_bundle / "student/tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(json.dumps(settings | {"pre_tokenizer": {"type": "Whitespace"}}), encoding="utf-8")
    done = edgeleaf("fuse", tokenizer, tiny_bundle / "onnx/model.onnx", "-o", tmp_path / "o.onnx", "--max-length", 9)
    assert done.returncode == 2
    assert done.stderr == (
        "edgeleaf: pre_tokenizer Whitespace is not supported with WordPiece: only BertPreTokenizer\n"
    )
    assert list(tmp_path.iterdir()) == [tokenizer]


@pytest.mark.slow
def test_documents_longer_than_the_window_are_counted_or_cut_into_passages(tiny_bundle: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    texts = tiny_texts(30, low=8, high=14, seed=22)
    rows = [{"_id": "long", "title": "lost parcel", "text": " ".join(texts)}, {"_id": "short", "text": texts[0]}]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = edgeleaf("index", tiny_bundle, corpus, "-o", tmp_path / "index")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 documents are longer than" in done.stderr and "is not searched; --passages" in done.stderr
    assert ", 1 cut at " in done.stdout
    (tmp_path / "index.work").mkdir()
    (tmp_path / "index.work" / "mine").write_text("training of a killed run")
    done = edgeleaf("index", tiny_bundle, corpus, "-o", tmp_path / "index", "--passages", "--force")
    assert done.returncode == 0, done.stderr
    assert " cut at " not in done.stdout and "longer than" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "index.work").iterdir()) == [".lock", "mine"]
    documents = list(Index.load(tmp_path / "index").documents)
    assert [key for key, _ in documents] == [f"long#{n}" for n in range(1, len(documents))] + ["short"]
    parts = [text.removeprefix("lost parcel ") for _, text in documents[:-1]]
    assert all(text.startswith("lost parcel ") for _, text in documents[:-1])
    assert " ".join(parts) == " ".join(texts)


def test_one_index_at_a_time(tiny_bundle: Path, tmp_path: Path) -> None:
    from edgeleaf.stages.lock import locked

    (tmp_path / "c.txt").write_text("lost parcel\n")
    with locked(tmp_path / "index.work"):
        done = edgeleaf("index", tiny_bundle, tmp_path / "c.txt", "-o", tmp_path / "index")
    assert (done.returncode, "another run is at work there" in done.stderr) == (2, True)
    assert not (tmp_path / "index").exists()
