"""verify: what a pack must reproduce, and what is counted or reported if it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeleaf.bundle import golden
from edgeleaf.bundle.manifest import GOLDEN, QUERY_ENCODER
from edgeleaf.errors import BundleError
from tests.conftest import needs

SETS = {"words": [f"lost parcel {'river ' * (n % 40)}{n}" for n in range(150)], "none": []}


@pytest.fixture(scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with everything: vectors, token ids, parity sets."""
    needs("onnx", "tokenizers", "torch")
    from tests import ports

    return ports.write_pack(request.getfixturevalue("tiny_bundle"), tmp_path_factory.mktemp("golden") / "pack", SETS)


@pytest.fixture
def pack(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "pack"))


@pytest.fixture
def vectors(bundle: Path, tmp_path: Path) -> Path:
    """A pack that a test may damage, without token ids: what numpy and onnxruntime alone can check."""
    (folder := tmp_path / "vectors").mkdir()
    for name in (QUERY_ENCODER, GOLDEN):
        shutil.copyfile(bundle / name, folder / name)
    return folder


def edit(file: Path, line: int, change: Callable[[dict[str, Any]], object]) -> None:
    lines = file.read_text(encoding="utf-8").split("\n")
    entry = json.loads(lines[line])
    change(entry)
    lines[line] = json.dumps(entry)
    file.write_text("\n".join(lines), encoding="utf-8")


def test_a_pack_is_reproduced(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert golden.main([str(written)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["runtime"]) == {"name", "version", "machine", "python"}
    assert report["golden"]["texts"] == len(golden.read_golden(written)) > 40
    assert report["golden"]["id_mismatches"] == report["golden"]["cosine_mismatches"] == 0
    assert report["golden"]["empty_batch"] is True
    assert report["golden"]["cosine_min"] > 0.9999
    assert report["parity"] == {
        "none": {"texts": 0, "mismatches": 0},
        "words": {"texts": 150, "mismatches": 0},
    }


def test_of_a_bundle_token_ids_are_not_checked(bundle: Path) -> None:
    report = golden.verify(bundle)
    assert report["golden"]["id_mismatches"] is None
    assert report["parity"] == {}
    assert report["passed"]


def test_parity_sets_are_thinned_out_and_golden_is_not(written: Path) -> None:
    report = golden.verify(written, every=40)
    assert report["parity"]["words"]["texts"] == 4
    assert report["golden"]["texts"] == len(golden.read_golden(written))


def test_wrong_token_ids_are_counted(pack: Path) -> None:
    edit(pack / GOLDEN, 3, lambda entry: entry["input_ids"].append(7))
    edit(pack / "parity" / "words.jsonl", 0, lambda entry: entry["input_ids"].pop())
    edit(pack / "parity" / "words.jsonl", 149, lambda entry: entry["input_ids"].reverse())
    report = golden.verify(pack)
    assert report["golden"]["id_mismatches"] == 1
    assert report["golden"]["cosine_mismatches"] == 0
    assert report["parity"]["words"] == {"texts": 150, "mismatches": 2}
    assert not report["passed"]
    assert golden.main([str(pack)]) == 1


def test_wrong_vectors_are_counted(vectors: Path) -> None:
    edit(vectors / GOLDEN, 5, lambda entry: entry.update(embedding=[-value for value in entry["embedding"]]))
    edit(vectors / GOLDEN, 6, lambda entry: entry.update(embedding=[0.0] * len(entry["embedding"])))
    report = golden.verify(vectors)
    assert report["golden"]["cosine_mismatches"] == 2
    assert report["golden"]["cosine_min"] == pytest.approx(-1, abs=1e-4)
    assert golden.main([str(vectors)]) == 1


def test_the_header_says_which_cosine_is_needed(vectors: Path) -> None:
    edit(vectors / GOLDEN, 0, lambda header: header.update(cosine_min=1.1))
    assert golden.verify(vectors)["golden"]["cosine_mismatches"] == len(golden.read_golden(vectors))


def spoil(name: str, text: str | None) -> Callable[[Path], None]:
    def do(pack: Path) -> None:
        (pack / name).unlink() if text is None else (pack / name).write_text(text)

    return do


HEADER = '{"schema_version": 1}\n'
ENTRY = '{"text": "a", "input_ids": [1], "embedding": [1.0]}\n'


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (spoil(QUERY_ENCODER, None), r"query_encoder\.onnx: missing; give a bundle"),
        (spoil(QUERY_ENCODER, "x"), r"query_encoder\.onnx: onnxruntime .* cannot open it"),
        (spoil(GOLDEN, None), r"golden\.jsonl: missing; build or copy"),
        (spoil(GOLDEN, HEADER), r"golden\.jsonl: no texts"),
        (spoil(GOLDEN, HEADER + '{"text": "a"}\n'), r"golden\.jsonl: damaged \(a line without input_ids\)"),
        (spoil(GOLDEN, HEADER + '{"text": "a", "input_ids": [1]}\n'), r"golden\.jsonl: .*without embedding"),
        (spoil(GOLDEN, HEADER + ENTRY + ENTRY.replace("1.0", "1.0, 0")), r"golden\.jsonl: damaged \(embeddings of sev"),
        (spoil(GOLDEN, HEADER + ENTRY), r"gives \[1, \d+\] and golden\.jsonl holds \[1, 1\]: they are not of one"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    vectors: Path, damage: Callable[[Path], None], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(vectors)
    refused_in_one_line(vectors, says, capsys)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (spoil("tokenizer.onnx", "x"), r"tokenizer\.onnx: onnxruntime .* cannot open it"),
        (spoil("parity/words.jsonl", '{"text"'), r"words\.jsonl: damaged \(not JSON: Expecting"),
    ],
)
def test_token_ids_that_cannot_be_read_are_one_line(
    pack: Path, damage: Callable[[Path], None], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(pack)
    refused_in_one_line(pack, says, capsys)


def refused_in_one_line(pack: Path, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match=says):
        golden.verify(pack)
    assert golden.main([str(pack)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("edgeleaf: ")
    assert err.count("\n") == 1


def test_every_from_one(bundle: Path) -> None:
    with pytest.raises(BundleError, match="every is 0; a whole number from 1"):
        golden.verify(bundle, every=0)


def test_it_needs_numpy_and_onnxruntime_only(bundle: Path) -> None:
    heavy = {"onnx", "rich", "tokenizers", "torch", "transformers", "typer"}
    program = (
        f"import sys; from edgeleaf.bundle import golden; status = golden.main([{str(bundle)!r}, '--every', '50']); "
        f"sys.exit(', '.join({heavy!r} & set(sys.modules)) or status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["golden"]["cosine_mismatches"] == 0
