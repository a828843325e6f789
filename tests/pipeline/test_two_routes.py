"""edgeleaf ship --format sentence-transformers: student and teacher as one model, for 5.0 to 6."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import BundleError, InputError, ModelError, QueryEncoder
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.pipeline.ship import ship
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.vectors import cosine_rows
from tests.conftest import make_tiny_model, tiny_texts

QUERIES = tiny_texts(20, low=2, high=6, seed=31)
DOCUMENTS = tiny_texts(20, low=10, high=40, seed=32)
READ = """
import json, sys
import numpy
import sentence_transformers
from sentence_transformers import SentenceTransformer

folder, texts, output = sys.argv[1:]
queries, documents = json.load(open(texts, encoding="utf-8"))
model = SentenceTransformer(folder, device="cpu", local_files_only=True)
numpy.savez(output, query=model.encode_query(queries), document=model.encode_document(documents))
import transformers
print(sentence_transformers.__version__, transformers.__version__)
"""


@pytest.fixture(scope="module")
def written(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-routes") / "model"
    ship(tiny_bundle, output=folder, format="sentence-transformers")
    return folder


@pytest.fixture(scope="module")
def expected(tiny_bundle: Path) -> dict[str, np.ndarray]:
    """The vectors of the torch student, of the fused file, and of the teacher."""
    from sentence_transformers import SentenceTransformer

    manifest = Manifest.read(tiny_bundle)
    student = SentenceTransformer(str(tiny_bundle / "student"), device="cpu", local_files_only=True)
    teacher = teacher_of(manifest)
    teacher.widen(64)  # its own window, as edgeleaf index uses it
    return {
        "query": student.encode(QUERIES, prompt=manifest.space.query_prompt),
        "fused": QueryEncoder.load(tiny_bundle).encode(QUERIES),
        "document": teacher.model.encode(DOCUMENTS, prompt=manifest.space.document_prompt),
    }


def check(found: Any, expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(found["query"], expected["query"], atol=2e-6)
    np.testing.assert_allclose(found["document"], expected["document"], atol=2e-6)
    assert cosine_rows(found["query"], expected["fused"]).min() > 0.99


def read_by(python: str, folder: Path, scratch: Path, **variables: str) -> tuple[str, Any]:
    """Return the versions that another Python prints, and the vectors of a model that it reads."""
    texts, output = scratch / "texts.json", scratch / "found.npz"
    texts.write_text(json.dumps([QUERIES, DOCUMENTS]), encoding="utf-8")
    command = [python, "-c", READ, str(folder), str(texts), str(output)]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "newer version" not in done.stderr and "initialized" not in done.stderr
    return done.stdout.strip(), np.load(output)


def test_it_opens_in_one_call(written: Path, expected: dict[str, np.ndarray]) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(written), device="cpu", local_files_only=True)
    found = {"query": model.encode_query(QUERIES), "document": model.encode_document(DOCUMENTS)}
    check(found, expected)
    assert found["query"].dtype == found["document"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found["document"], axis=1), 1, atol=1e-5)
    assert model.prompts == {"query": "query: ", "document": ""}
    assert model.encode_query("lost parcel").shape == (48,)
    assert float(model.similarity(found["query"], found["document"]).max()) < 1.001


def test_long_texts_are_cut_at_each_sides_window(written: Path, tiny_bundle: Path) -> None:
    from sentence_transformers import SentenceTransformer

    long = [" ".join(DOCUMENTS)]
    model = SentenceTransformer(str(written), device="cpu", local_files_only=True)
    teacher = teacher_of(Manifest.read(tiny_bundle))
    teacher.widen(64)
    np.testing.assert_allclose(model.encode_document(long), teacher.model.encode(long), atol=2e-6)
    assert cosine_rows(model.encode_query(long), QueryEncoder.load(tiny_bundle).encode(long)).min() > 0.99


def test_the_layout(written: Path) -> None:
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    names = [f"{route}_{place}_{kind}" for route in ("query", "document") for place, kind in enumerate(kinds)]
    router = json.loads((written / "router_config.json").read_text(encoding="utf-8"))
    assert router["structure"] == {"query": names[:4], "document": names[4:]}
    assert router["types"] == {name: f"sentence_transformers.models.{name.rpartition('_')[2]}" for name in names}
    assert router["parameters"] == {"default_route": "document", "allow_empty_key": True}
    modules = json.loads((written / "modules.json").read_text(encoding="utf-8"))
    assert modules == [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]
    top = {"modules.json", "router_config.json", "config_sentence_transformers.json", "README.md", *names}
    assert {path.name for path in written.iterdir()} == top
    suffixes = {path.suffix for path in written.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".txt", ".md"}


def test_the_card_states_what_was_measured(written: Path, tiny_bundle: Path, tiny_teacher: Path) -> None:
    card = (written / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `encode_(\w+)` to .*? \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", card)
    assert [side for side, *_ in rows] == ["query", "query", "document"]
    student, fused, document = ([float(number) for number in numbers] for _, *numbers in rows)
    assert min(student) > 0.99999 and min(document) > 0.99999
    assert 0.99 < min(fused) < 0.999999
    assert Manifest.read(tiny_bundle).space.id in card
    assert str(tiny_teacher.parent) not in card  # no path of this machine


def test_older_versions_open_it(written: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    """sentence-transformers 5.0 over these packages; `make test-oldest` has it in a folder of its own."""
    older = os.environ.get("EDGELEAF_SENTENCE_TRANSFORMERS_5_0")
    if not older:
        pytest.skip("needs sentence-transformers 5.0: make test-oldest")
    versions, found = read_by(sys.executable, written, tmp_path, PYTHONPATH=older)
    assert versions.startswith("5.0.0 ")
    check(found, expected)


@pytest.mark.parametrize("version", ["5.0.0", "5.4.0"])
def test_older_packages_open_what_these_wrote(
    written: Path, expected: dict[str, np.ndarray], tmp_path: Path, version: str
) -> None:
    """The other environment has transformers 4; `make test-oldest` builds it and runs this."""
    older = os.environ.get("EDGELEAF_OLDEST_ENVIRONMENT")
    if not older:
        pytest.skip("needs the environment of make test-oldest")
    variables = {"PYTHONPATH": f"{older}/5.0" if version == "5.0.0" else ""}
    versions, found = read_by(f"{older}/bin/python", written, tmp_path, **variables)
    assert re.match(rf"{re.escape(version)} 4\.", versions)
    check(found, expected)


@pytest.mark.slow
def test_a_light_copys_student_too(tiny_bundle: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Its weights are float16 on disk, and stay so; sentence-transformers reads them as float32."""
    ship(tiny_bundle, output=tmp_path / "light", keep_texts=True)
    ship(tmp_path / "light", output=tmp_path / "model", format="sentence-transformers")
    _, found = read_by(sys.executable, tmp_path / "model", tmp_path)
    assert cosine_rows(found["query"], expected["query"]).min() > 0.9999
    np.testing.assert_allclose(found["document"], expected["document"], atol=2e-6)
    files = (tmp_path / "light/student/model.safetensors", tmp_path / "model/query_0_Transformer/model.safetensors")
    assert files[0].read_bytes() == files[1].read_bytes()


def retaught(tiny_bundle: Path, teacher: Path, folder: Path) -> Path:
    """Return a copy of the bundle that names another teacher, as if it had been distilled from that one."""
    from edgeleaf.models.loading import load_sentence_transformer
    from edgeleaf.teachers.sentence_transformer import space_of

    bundle = shutil.copytree(tiny_bundle, folder / "bundle")
    space = space_of(load_sentence_transformer(teacher), teacher, name=str(teacher), query_prompt="query: ")
    manifest = json.loads((bundle / "edgeleaf.json").read_text(encoding="utf-8"))
    manifest["space"] = {name: getattr(space, name) for name in manifest["space"]}
    (bundle / "edgeleaf.json").write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


def test_a_teacher_without_unit_vectors_gets_a_normalize(tiny_bundle: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    teacher = make_tiny_model(tmp_path / "teacher", seed=7, hidden=48)
    (teacher / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": true}')
    bundle = retaught(tiny_bundle, teacher, tmp_path)
    ship(bundle, output=tmp_path / "model", format="sentence-transformers")
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    exact = SentenceTransformer(str(teacher), device="cpu", local_files_only=True).encode(DOCUMENTS)
    assert np.linalg.norm(exact, axis=1).min() > 1.1
    np.testing.assert_allclose(
        model.encode_document(DOCUMENTS), exact / np.linalg.norm(exact, axis=1, keepdims=True), atol=2e-6
    )
    config = json.loads((tmp_path / "model/document_0_Transformer/sentence_bert_config.json").read_text())
    assert config == {"max_seq_length": 64, "do_lower_case": True}


def test_a_teacher_with_other_modules_is_refused_by_name(tiny_bundle: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import LayerNorm

    start = make_tiny_model(tmp_path / "start", seed=7, hidden=48)
    model = SentenceTransformer(str(start), device="cpu", local_files_only=True)
    model.append(LayerNorm(48))
    model.save(str(tmp_path / "teacher"), create_model_card=False)
    bundle = retaught(tiny_bundle, tmp_path / "teacher", tmp_path)
    with pytest.raises(ModelError, match="a module of type LayerNorm"):
        ship(bundle, output=tmp_path / "model", format="sentence-transformers")
    assert not (tmp_path / "model").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_model_that_gives_other_vectors_is_not_written(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeleaf.pipeline import two_routes

    def cut(folder: Path, *, max_length: int) -> None:
        two_routes_portable(folder, max_length=8)

    two_routes_portable = two_routes.make_portable
    monkeypatch.setattr(two_routes, "make_portable", cut)
    with pytest.raises(BundleError, match=r"its \w+ has cosine 0\.\d+ to itself; 0\.99999 is needed"):
        ship(tiny_bundle, output=tmp_path / "model", format="sentence-transformers")
    assert list(tmp_path.iterdir()) == []


def test_bad_input(tiny_bundle: Path, written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'^format is "onnx"; bundle or sentence-transformers is needed$'):
        ship(tiny_bundle, output=tmp_path / "model", format="onnx")
    for options in ({"texts": ["a.txt"]}, {"processors": ["armv8.0"]}, {"keep_texts": True}, {"takes": "utf8"}):
        with pytest.raises(InputError, match="is for copies of a bundle"):
            ship(tiny_bundle, output=tmp_path / "model", format="sentence-transformers", **options)  # type: ignore
    with pytest.raises(InputError, match="the bundle itself"):
        ship(tiny_bundle, output=tiny_bundle, format="sentence-transformers")
    with pytest.raises(BundleError, match="not an empty folder"):
        ship(tiny_bundle, output=written, format="sentence-transformers")
    (tmp_path / "file").write_text("a")
    with pytest.raises(BundleError, match="not an empty folder"):
        ship(tiny_bundle, output=tmp_path / "file", format="sentence-transformers")
    with pytest.raises(BundleError, match="no such bundle folder"):
        ship(tmp_path / "none", output=tmp_path / "model", format="sentence-transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_the_teacher_nothing_is_written(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "edgeleaf.json").read_text(encoding="utf-8"))
    manifest["space"]["teacher"] = "nobody/no-such-teacher"
    (bundle / "edgeleaf.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match="nobody/no-such-teacher"):
        ship(bundle, output=tmp_path / "model", format="sentence-transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
