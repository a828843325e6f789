"""The whole way with tiny models: the bundle's contract, resuming after a kill, gates, exporting, checking again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgeleaf
from edgeleaf import QueryEncoder
from edgeleaf.bundle.golden import read_golden, verify
from edgeleaf.bundle.machine import processor_kind
from edgeleaf.bundle.manifest import Manifest, says_failed
from edgeleaf.certify.certificate import Certificate
from edgeleaf.errors import BundleError, EmulationError, GateFailed, InputError, ModelError, RecipeError, TextsError
from edgeleaf.files import sha256
from edgeleaf.graph.hard_texts import CODE_POINT_TEXTS, HARD_TEXTS
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.pipeline import adapt as adaptation
from edgeleaf.pipeline import run as pipeline
from edgeleaf.pipeline.places import work_folder
from edgeleaf.pipeline.preflight import export_spec
from edgeleaf.pipeline.ship import ship
from edgeleaf.recipe.presets import gates_for
from edgeleaf.recipe.specs import Gates, ObjectiveSpec
from edgeleaf.stages.student import normalized_copy
from edgeleaf.stages.vectors import VECTOR_CACHE
from edgeleaf.texts.corpus import read_corpus
from tests.conftest import make_tiny_model, needs_optimum, thin_code_points, tiny_texts, write_collection


def hashes(bundle: Path) -> dict[str, str]:
    files = [path for path in bundle.rglob("*") if path.is_file() and path.name != "latency.json"]
    return {path.relative_to(bundle).as_posix(): sha256(path) for path in files}


def test_bundle_holds_what_the_design_says(tiny_bundle: Path) -> None:
    names = "edgeleaf.json query_encoder.onnx onnx/model.onnx onnx/model_qint8.onnx student/modules.json "
    names += "held_out.jsonl golden.jsonl certificate.json certificate.html latency.json README.md"
    for name in names.split():
        assert (tiny_bundle / name).is_file(), name
    manifest = Manifest.read(tiny_bundle)
    manifest.verify(tiny_bundle)
    assert set(manifest.files) == {*hashes(tiny_bundle)} - {"edgeleaf.json", "README.md"}
    assert {path.stat().st_mode & 0o777 for path in tiny_bundle.rglob("*") if path.is_file()} == {0o644}
    assert not [path for path in tiny_bundle.parent.iterdir() if path.name.startswith(".")]


def test_space_is_the_same_in_manifest_file_golden_and_certificate(tiny_bundle: Path) -> None:
    space = Manifest.read(tiny_bundle).space
    assert QueryEncoder.load(tiny_bundle).space == space
    assert json.loads((tiny_bundle / "certificate.json").read_text())["space"]["id"] == space.id
    header = json.loads((tiny_bundle / "golden.jsonl").read_text().split("\n")[0])
    assert header["space"] == space.id
    assert (space.query_prompt, space.dim) == ("query: ", 48)


def test_fused_file_needs_stock_operators_only(tiny_bundle: Path) -> None:
    model = onnx.load(tiny_bundle / "query_encoder.onnx")
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
    outputs = {name for node in model.graph.node for name in node.output}
    assert {"input_ids", "attention_mask"} <= outputs


def test_golden_pack_is_reproduced(tiny_bundle: Path) -> None:
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    entries = read_golden(tiny_bundle)
    tokenizer = reference_tokenizer((tiny_bundle / "student" / "tokenizer.json").read_text(), 48)
    assert [entry["input_ids"] for entry in entries] == [tokenizer.encode("query: " + e["text"]).ids for e in entries]
    vectors = QueryEncoder.load(tiny_bundle).encode([entry["text"] for entry in entries])
    assert np.sum(vectors * np.array([entry["embedding"] for entry in entries]), axis=1).min() > 0.9999
    lengths = [len(entry["input_ids"]) for entry in entries]
    assert all(lengths.count(length) >= 4 for length in (8, 16, 32))


def test_student_is_closer_to_its_teacher_than_chance(tiny_bundle: Path) -> None:
    certificate = json.loads((tiny_bundle / "certificate.json").read_text())
    fused = next(rung for rung in certificate["rungs"] if rung["name"] == "fused")
    assert fused["teacher_cosine"]["mean"] > 0.85
    assert certificate["parity"]["mismatches"] == 0


@pytest.fixture(scope="module")
def lightly_certified(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """The same bundle, certified on fewer code points."""
    output = tmp_path_factory.mktemp("lightly") / "tiny"
    shutil.copytree(work_folder(tiny_bundle), work_folder(output), ignore=shutil.ignore_patterns("checked"))
    with pytest.MonkeyPatch.context() as patch:
        thin_code_points(patch)
        return pipeline.run(tiny_recipe, output=output).bundle


def test_the_bundle_is_certified_on_every_code_point(tiny_bundle: Path, lightly_certified: Path) -> None:
    """Most bundles of these tests are not."""
    every, few = (
        json.loads((bundle / "certificate.json").read_text())["parity"] for bundle in (tiny_bundle, lightly_certified)
    )
    assert (every["code_points"], every["mismatches"]) == (True, 0)
    assert every["tried"] - few["tried"] == CODE_POINT_TEXTS - len(range(0, CODE_POINT_TEXTS, 64))


KILLED_AT = (
    "vector-cache/*/00000.keys.npy",
    "student.partial/checkpoints",
    "student.partial/checkpoints/*/complete",
    "graph.partial",
)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("until", KILLED_AT)
def test_a_killed_run_ends_in_the_same_bundle(
    tiny_recipe: Path, lightly_certified: Path, tmp_path: Path, until: str
) -> None:
    output = tmp_path / "tiny"
    command = [sys.executable, "-m", "edgeleaf.cli", "run", str(tiny_recipe), "-o", str(output)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True) as run:
        while not list(work_folder(output).glob(until)):
            assert run.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGKILL)
    assert not output.exists()
    pipeline.run(tiny_recipe, output=output)
    assert hashes(output) == hashes(lightly_certified)


@pytest.mark.usefixtures("quick")
def test_a_gate_that_fails_ships_nothing(tiny_recipe: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "tiny"
    shutil.copytree(work_folder(tiny_bundle), work_folder(output))
    strict = tiny_recipe.with_name("strict.toml")
    strict.write_text(tiny_recipe.read_text().replace("cosine_mean = 0.3", "cosine_mean = 0.9999"))
    with pytest.raises(GateFailed, match=r"not shipped: gate cosine_mean: 0\.\d+ is below 0\.9999.*certificate\.html"):
        pipeline.run(strict, output=output)
    assert not output.exists()


def test_output_that_is_something_else_is_left_alone(tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        pipeline.run(tiny_recipe, output=tmp_path)
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        pipeline.run(tiny_recipe, output=tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("pooling", "dense"), [("mean", None), ("cls", None), ("mean", 40)])
def test_export_of_an_existing_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, dense: int | None
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = make_tiny_model(tmp_path / "model", seed=5, hidden=32, pooling=pooling, dense=dense)
    queries = tmp_path / "queries.txt"
    texts = tiny_texts(300, low=2, high=10, seed=8)
    queries.write_text("\n".join(texts))
    result = edgeleaf.export(str(folder), output=tmp_path / "out", texts=[str(queries)])
    assert result.certificate.passed
    assert result.certificate.queries == 300
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.sum(expected * QueryEncoder.load(result.bundle).encode(texts), axis=1).min() > 0.99


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("preset", "least"),
    [("int4", 0.9), ("int8-weights", 0.999), ("int4-weights", 0.9), ("fp16", 0.9999), ("fp32", 0.99999)],
)
def test_export_by_another_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, least: float, tiny_teacher: Path
) -> None:
    loose = Gates(**{name: False for name in vars(Gates()) if name != "token_mismatches"})
    monkeypatch.setattr("edgeleaf.pipeline.export.export_gates", lambda preset: gates_for(preset, loose))
    queries = tmp_path / "queries.txt"
    queries.write_text("\n".join(tiny_texts(60, low=2, high=10, seed=8)))
    result = edgeleaf.export(str(tiny_teacher), output=tmp_path / "out", texts=[queries], preset=preset)
    names = {path.name for path in (result.bundle / "onnx").iterdir()}
    weights = {"int8-weights": {"model_w8.onnx"}, "int4-weights": {"model_w4.onnx"}}
    made = {**weights, "int4": {"model_q4.onnx"}, "fp16": {"model_fp16.onnx"}, "fp32": set[str]()}
    assert names == {"model.onnx"} | made[preset]
    assert result.manifest.quantization["preset"] == preset
    to_torch = result.certificate.rungs[-1].student_cosine  # the teacher's own vectors are in bfloat16 on some machines
    assert to_torch is not None and to_torch.min > least
    assert [rung.name for rung in result.certificate.rungs].count("onnx_quantized") == len(made[preset])


def test_export_by_no_preset(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"preset is 'int2'; allowed: int8, int4, int8-weights, int4-weights, fp16, fp32"
    ):
        edgeleaf.export("anything", output=tmp_path / "out", preset="int2")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_export_of_a_model_that_cuts_long_texts_on_the_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer

    folder = make_tiny_model(tmp_path / "model", seed=9, hidden=32)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"truncation_side": "left"}))
    texts = tiny_texts(60, low=2, high=150, seed=8)
    (tmp_path / "queries.txt").write_text("\n".join(texts))
    result = edgeleaf.export(str(folder), output=tmp_path / "out", texts=[tmp_path / "queries.txt"])
    assert result.certificate.passed
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.sum(expected * QueryEncoder.load(result.bundle).encode(texts), axis=1).min() > 0.99


def copied(bundle: Path, target: Path) -> Path:
    shutil.copytree(bundle, target)
    return target


@pytest.mark.slow
def test_check_measures_the_same_again_and_leaves_nothing_behind(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = copied(tiny_bundle, tmp_path / "tiny")
    before = hashes(copy)
    assert edgeleaf.check(copy, output=tmp_path / "report").passed
    assert hashes(copy) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "tiny"]
    for name in ("certificate.json", "certificate.html"):
        assert (tmp_path / "report" / name).read_bytes() == (copy / name).read_bytes()


@pytest.mark.usefixtures("quick")
def test_check_with_texts_of_ones_own(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copied(tiny_bundle, tmp_path / "tiny")
    before = hashes(copy)
    (tmp_path / "mine.txt").write_text("\n".join(tiny_texts(30, low=2, high=9, seed=31)))
    monkeypatch.chdir(tmp_path)
    certificate = edgeleaf.check("tiny", texts=["mine.txt"])
    assert certificate.queries == 30
    assert certificate.texts == "queries of mine.txt, documents from documentation found on the machine"
    assert hashes(copy) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "tiny"]


@pytest.mark.usefixtures("quick")
def test_check_keeps_the_teacher_vectors_of_a_run(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = copied(tiny_bundle, tmp_path / "tiny")
    work = copied(work_folder(tiny_bundle), work_folder(copy))
    before = sorted(path.name for path in work.iterdir())
    assert edgeleaf.check(copy).passed
    assert sorted(path.name for path in work.iterdir()) == before
    assert "vector-cache" in before


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_check_with_a_collection_asks_the_teacher_once(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher

    copy, collection = copied(tiny_bundle, tmp_path / "tiny"), write_collection(tmp_path / "mine")
    before = hashes(copy)
    certificate = edgeleaf.check(copy, collections=[collection], output=tmp_path / "first")
    (report,) = certificate.collections
    assert (report.name, report.queries, report.documents) == ("mine", 25, 110)
    assert report.rungs[0].recall_at_100 is not None and report.teacher is not None
    # The bundle's query prompt is not its documents', so the file that puts it in cannot encode them.
    assert report.symmetric is not None and report.symmetric.documents == "torch student"
    assert hashes(copy) == before
    work = work_folder(copy)
    assert [path.name for path in work.iterdir() if path.is_dir()] == [VECTOR_CACHE]

    monkeypatch.setattr(SentenceTransformerTeacher, "encode", None)  # not reached: every vector is there
    assert not edgeleaf.check(copy).collections
    assert edgeleaf.check(copy, collections=[collection], output=tmp_path / "second") == certificate
    for name in ("certificate.json", "certificate.html"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_check_refuses_a_collection_before_the_long_work(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeleaf.pipeline.check.teacher_of", None)  # not reached
    copy, collection = copied(tiny_bundle, tmp_path / "tiny"), write_collection(tmp_path / "mine")
    (collection / "qrels" / "test.tsv").write_text("q1 d1 1\n")
    for folder, message in ((collection, "test.tsv, line 1: needed query-id"), (tmp_path / "none", "no such folder")):
        with pytest.raises(TextsError, match=message):
            edgeleaf.check(copy, collections=[folder])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "tiny"]


def test_check_refuses_a_gate_that_it_does_not_know(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = copied(tiny_bundle, tmp_path / "tiny")
    manifest = json.loads((copy / "edgeleaf.json").read_text())
    manifest["gates"]["colour"] = 3
    (copy / "edgeleaf.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="gates that this edgeleaf does not know: colour; known: cosine_mean, "):
        edgeleaf.check(copy)


def test_a_bundle_is_judged_by_what_its_preset_may_cost(tiny_bundle: Path) -> None:
    gates = Manifest.read(tiny_bundle).gates
    assert (gates["cosine_mean"], gates["cosine_p01"]) == (0.3, None)
    assert (gates["quantization_cosine_mean"], gates["padding_invariance_cosine_min"]) == (0.998, 0.999999)
    verdicts = json.loads((tiny_bundle / "certificate.json").read_text())["verdicts"]
    judged = {verdict["gate"] for verdict in verdicts}
    assert judged == {name for name, limit in gates.items() if limit is not None} - {
        "quantization_ndcg_loss",
        "processor_cosine_min",
    }


def test_check_says_what_is_wrong_with_its_texts_before_the_long_work(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeleaf.pipeline.check.teacher_of", None)  # not reached
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n \n")
    Path("few.txt").write_text("\n".join(tiny_texts(19, low=2, high=9, seed=31)))
    for name, message in (
        ("empty.txt", "no text in empty.txt: add texts"),
        ("few.txt", "few.txt: 19 distinct queries; a verdict needs at least 20"),
        ("none.txt", "no file matches 'none.txt'"),
        (".", "no file matches '.'"),
    ):
        with pytest.raises(TextsError) as caught:
            edgeleaf.check(tiny_bundle, texts=[name])
        assert str(caught.value).startswith(message)
        with pytest.raises(TextsError) as caught:
            edgeleaf.export("no-such-model", output="out", texts=[name])
        assert str(caught.value).startswith(message)


def test_a_recipes_files_are_looked_for_before_its_models(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(tiny_recipe.read_text().replace('"queries.txt"', '"none.txt"'))
    for build in (edgeleaf.run, edgeleaf.distill):
        with pytest.raises(TextsError, match=r"no file matches 'none\.txt'"):
            build(recipe, output=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["r.toml"]


def test_a_report_is_not_written_over_anything(tiny_bundle: Path) -> None:
    for measure in (edgeleaf.check, edgeleaf.bench):
        with pytest.raises(BundleError, match="exists and is not an empty folder; give a new one for the report"):
            measure(tiny_bundle, output=tiny_bundle)


def test_check_of_a_damaged_bundle_repairs_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = copied(tiny_bundle, tmp_path / "tiny")
    (copy / "certificate.json").write_text("half")
    (copy / "golden.jsonl").unlink()
    with pytest.raises(BundleError, match=r"certificate\.json: damaged: .*; .*golden\.jsonl: missing, though .* again"):
        edgeleaf.check(copy)
    assert (copy / "certificate.json").read_text() == "half"


@pytest.mark.usefixtures("quick")
def test_check_below_a_gate_says_so_and_changes_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = copied(tiny_bundle, tmp_path / "tiny")
    manifest = json.loads((copy / "edgeleaf.json").read_text())
    manifest["gates"]["cosine_mean"] = 0.999
    (copy / "edgeleaf.json").write_text(json.dumps(manifest))
    before = hashes(copy)
    certificate = edgeleaf.check(copy, output=tmp_path / "report")
    assert certificate.failures[0].startswith("gate cosine_mean: 0.")
    assert hashes(copy) == before
    assert says_failed(tmp_path / "report")
    assert not says_failed(copy)


@pytest.mark.slow
def test_changed_texts_are_collected_again(tiny_recipe: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    shutil.copytree(tiny_recipe.parent, folder)
    with (folder / "queries.txt").open("a") as queries:
        queries.write("\n".join(tiny_texts(200, low=9, high=9, seed=77)))
    student = edgeleaf.distill(folder / "tiny.toml", output=tmp_path / "tiny")
    held_out = (student.parent.parent / "texts" / "held_out.jsonl").read_text()
    assert held_out != (tiny_bundle / "held_out.jsonl").read_text()
    texts = (student.parent.parent / "texts" / "train.jsonl").stat().st_mtime_ns
    edgeleaf.distill(folder / "tiny.toml", output=tmp_path / "tiny")
    assert (student.parent.parent / "texts" / "train.jsonl").stat().st_mtime_ns == texts


def test_prompts_of_an_exported_model_are_kept(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", seed=7, hidden=32)
    path = folder / "config_sentence_transformers.json"
    prompts = {"query": "search: ", "passage": "text: "}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompts": prompts, "default_prompt_name": "query"}))
    spec = export_spec(str(folder), max_length=None, query_prompt=None)
    assert (spec.query_prompt, spec.document_prompt, spec.max_length) == ("search: ", "text: ", 64)
    normalized_copy(tmp_path / "copy", folder, spec)
    student = load_sentence_transformer(tmp_path / "copy" / "student")
    assert student.default_prompt_name is None
    assert student.prompts == {"query": "search: ", "document": "text: "}


def test_a_prompt_by_its_name(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", seed=7, hidden=32)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompts": {"query": "q: ", "web": "search: "}}))
    spec = export_spec(str(folder), max_length=None, query_prompt=None, prompt_name="web")
    assert spec.query_prompt == "search: "
    with pytest.raises(ModelError, match=r"model has no prompt named 'wep'; its prompts: query, web"):
        export_spec(str(folder), max_length=None, query_prompt=None, prompt_name="wep")
    with pytest.raises(InputError, match="give --prompt or --prompt-name"):
        edgeleaf.export(str(folder), output=tmp_path / "out", prompt="x", prompt_name="web")
    assert not (tmp_path / "out").exists()


def test_check_refuses_another_teacher(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = copied(tiny_bundle, tmp_path / "tiny")
    other = make_tiny_model(tmp_path / "other", seed=6, hidden=64, dense=48)
    manifest = json.loads((copy / "edgeleaf.json").read_text())
    manifest["space"]["teacher"] = str(other)
    (copy / "edgeleaf.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="the bundle's space has"):
        edgeleaf.check(copy)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_adapting_goes_on_from_the_student_and_brings_it_closer(
    tiny_bundle: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "OBJECTIVE", ObjectiveSpec(epochs=4, learning_rate=1e-3, checkpoint_steps=20))
    documents = tiny_texts(300, low=12, high=18, seed=51)
    bodies = [f"{text}. {text[::-1].capitalize()}." for text in documents]
    rows = [{"_id": f"d{n}", "title": text[:20], "text": text} for n, text in enumerate(bodies)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "log.txt").write_text("\n".join(tiny_texts(100, low=2, high=5, seed=52)))
    before = hashes(tiny_bundle)
    result = edgeleaf.adapt(
        tiny_bundle, documents=tmp_path / "corpus.jsonl", queries=tmp_path / "log.txt", output=tmp_path / "out"
    )
    assert hashes(tiny_bundle) == before
    old, new = Manifest.read(tiny_bundle), result.manifest
    assert new.space == old.space
    assert new.student["start"] == old.student["start"]
    assert new.student["adapted_from"] == f"tiny, weights {old.student['weights_sha256']}"
    assert str(tmp_path) not in (result.bundle / "edgeleaf.json").read_text()
    curve = json.loads((result.bundle / "student" / "training.json").read_text())
    cosines = [entry["held_out_cosine"] for entry in curve if "held_out_cosine" in entry]
    last = json.loads((tiny_bundle / "student" / "training.json").read_text())[-1]["held_out_cosine"]
    assert abs(cosines[0] - last) < 0.1  # other texts, the same student: not a new projection's start
    assert cosines[-1] > cosines[0] + 0.005
    texts = {text.text for text in read_corpus(work_folder(tmp_path / "out") / "texts", "train")}
    assert f"{documents[0]}." in texts or f"{documents[1]}." in texts  # sentences, without their titles


def test_adapting_refuses_before_the_long_work(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeleaf.pipeline.run.load_teacher", None)  # not reached
    few = tmp_path / "few.txt"
    few.write_text("\n".join(tiny_texts(50, low=4, high=9, seed=53)))
    with pytest.raises(TextsError, match=r"few\.txt: 50 sentences; adapting needs at least 100"):
        edgeleaf.adapt(tiny_bundle, documents=few, output=tmp_path / "out")
    with pytest.raises(InputError, match="is the bundle itself"):
        edgeleaf.adapt(tiny_bundle, documents=few, output=tiny_bundle)
    with pytest.raises(InputError, match="is the bundle itself"):
        ship(tiny_bundle, output=tiny_bundle)


def test_adapting_refuses_another_teacher(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copied(tiny_bundle, tmp_path / "tiny")
    manifest = Manifest.read(copy)
    replace(manifest, space=replace(manifest.space, weights_sha256="1" * 64)).write(copy)
    (tmp_path / "documents.txt").write_text("\n".join(tiny_texts(300, low=4, high=9, seed=53)))
    with pytest.raises(ModelError, match="the bundle's space has 111111111111…"):
        edgeleaf.adapt(copy, documents=tmp_path / "documents.txt", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapting_needs_a_document(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(TextsError, match=r"no file matches .*none\.jsonl"):
        edgeleaf.adapt(tiny_bundle, documents=tmp_path / "none.jsonl", output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_student_of_two_poolings_ships_all_the_same(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tiny_recipe.read_text().replace("[student]", '[student]\npooling = ["mean", "cls"]')
    for name in ("queries.txt", "documents.txt"):
        text = text.replace(f'"{name}"', f'"{tiny_recipe.parent / name}"')
    (tmp_path / "pooled.toml").write_text(text.replace("[objective]", "[objective]\nepochs = 0.2"))
    certificate = edgeleaf.run(tmp_path / "pooled.toml", output=tmp_path / "out").certificate
    assert certificate.passed
    assert certificate.rung("fused").student_cosine.min > 0.99
    assert certificate.batch_invariance.cosine_min == certificate.padding_invariance.cosine_min == 1.0
    settings = json.loads((tmp_path / "out" / "student" / "1_Pooling" / "config.json").read_text())
    assert settings["pooling_mode_mean_tokens"] and settings["pooling_mode_cls_token"]


def test_an_unknown_pooling(tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(tiny_recipe.read_text().replace("[student]", '[student]\npooling = ["min"]'))
    with pytest.raises(RecipeError, match=r'student\.pooling\[0\] is "min"; allowed: "mean", "max", "cls"'):
        edgeleaf.run(tmp_path / "x.toml", output=tmp_path / "out")


@pytest.mark.usefixtures("quick")
def test_a_light_copy_does_all_that_a_bundle_does(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "light"
    manifest = ship(tiny_bundle, output=copy, keep_texts=True)
    manifest.verify(copy)
    assert not (copy / "onnx").exists()
    assert sha256(copy / "query_encoder.onnx") == sha256(tiny_bundle / "query_encoder.onnx")
    sizes = [sum(f.stat().st_size for f in (b / "student").rglob("*.safetensors")) for b in (tiny_bundle, copy)]
    assert sizes[1] < 0.6 * sizes[0]
    texts = tiny_texts(20, low=2, high=9, seed=61)
    before, after = (load_sentence_transformer(b / "student").encode(texts) for b in (tiny_bundle, copy))
    assert np.sum(before * after, axis=1).min() > 0.99999
    certificate = edgeleaf.check(copy)
    assert certificate.passed and [rung.name for rung in certificate.rungs] == ["student", "fused"]
    again = ship(copy, output=tmp_path / "lighter", keep_texts=True)
    assert dict(again.files) == dict(manifest.files)


@pytest.mark.usefixtures("quick")
def test_a_light_copy_holds_none_of_the_bundles_own_texts(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("edgeleaf.progress.say", said.append)
    public = tiny_texts(60, low=3, high=9, seed=63)
    (tmp_path / "public.txt").write_text("\n".join(public))
    copy = tmp_path / "light"
    manifest = ship(tiny_bundle, output=copy, texts=[tmp_path / "public.txt"])
    manifest.verify(copy)
    own = {text.text for text in read_corpus(tiny_bundle, "held_out")}
    for name in ("held_out.jsonl", "golden.jsonl", "certificate.json", "certificate.html", "README.md"):
        content = (copy / name).read_text(encoding="utf-8")
        assert not [text for text in own if len(text) > 12 and text in content], name
    assert {text.text for text in read_corpus(copy, "held_out") if text.kind == "query"} == set(public)
    assert manifest.held_out["origin"] == "queries of public.txt, documents from documentation found on the machine"
    certificate = json.loads((copy / "certificate.json").read_text())
    assert certificate["queries"] == 60 and [rung["name"] for rung in certificate["rungs"]] == ["student", "fused"]
    assert edgeleaf.check(copy).passed
    assert any(manifest.space.teacher in line for line in said)  # a path of this machine is given away, and reported
    with pytest.raises(InputError, match="choose one"):
        ship(tiny_bundle, output=copy, texts=["a.txt"], keep_texts=True)
    with pytest.raises(InputError, match="choose one"):
        ship(tiny_bundle, output=copy, processors=["armv8.0"], keep_texts=True)
    with pytest.raises(EmulationError, match="m68k"):
        ship(tiny_bundle, output=copy, processors=["m68k"])


def test_a_copy_that_takes_bytes(tiny_bundle: Path, utf8_bundle: Path) -> None:
    manifest = Manifest.read(utf8_bundle)
    manifest.verify(utf8_bundle)
    assert (manifest.input, Manifest.read(tiny_bundle).input) == ("utf8", "text")
    before, after = (Certificate.read(bundle / "certificate.json") for bundle in (tiny_bundle, utf8_bundle))
    assert (before.input, after.input) == ("text", "utf8")
    assert after.passed and after.parity.mismatches == 0
    assert after.file_sha256 == sha256(utf8_bundle / "query_encoder.onnx") != before.file_sha256
    assert after.rungs[-1].teacher_cosine == before.rungs[-1].teacher_cosine
    assert set(manifest.processors) == {processor_kind()}
    golden = [
        (bundle / "golden.jsonl").read_text(encoding="utf-8").split("\n", 1) for bundle in (tiny_bundle, utf8_bundle)
    ]
    assert [json.loads(header)["input"] for header, _ in golden] == ["text", "utf8"]
    assert golden[0][1] == golden[1][1]
    assert verify(utf8_bundle)["passed"]
    encoders = [QueryEncoder.load(bundle) for bundle in (tiny_bundle, utf8_bundle)]
    assert [encoder.input for encoder in encoders] == ["text", "utf8"]
    texts = [*HARD_TEXTS, *(text.text for text in read_corpus(tiny_bundle, "held_out"))]
    for given in (texts, texts[:1], []):
        one, other = (encoder.encode(given) for encoder in encoders)
        np.testing.assert_array_equal(one, other)
    inputs = [onnx.load(bundle / "query_encoder.onnx").graph.input for bundle in (tiny_bundle, utf8_bundle)]
    assert [[entry.name for entry in found] for found in inputs] == [["text"], ["utf8"]]


@pytest.mark.usefixtures("quick")
def test_a_copy_of_a_copy_takes_strings_again(tiny_bundle: Path, utf8_bundle: Path, tmp_path: Path) -> None:
    as_it_is = ship(utf8_bundle, output=tmp_path / "bytes", keep_texts=True)
    assert as_it_is.input == "utf8" and as_it_is.files == Manifest.read(utf8_bundle).files
    (tmp_path / "public.txt").write_text("\n".join(tiny_texts(60, low=3, high=9, seed=64)))
    manifest = ship(utf8_bundle, output=tmp_path / "text", texts=[tmp_path / "public.txt"], takes="text")
    assert manifest.input == "text"
    assert sha256(tmp_path / "text" / "query_encoder.onnx") == sha256(tiny_bundle / "query_encoder.onnx")
    with pytest.raises(InputError, match="choose one"):
        ship(utf8_bundle, output=tmp_path / "other", processors=["m68k"], keep_texts=True, takes="utf8")
    with pytest.raises(EmulationError, match="m68k"):  # the other input is certified, so processors can be compared
        ship(utf8_bundle, output=tmp_path / "other", processors=["m68k"], keep_texts=True, takes="text")
    with pytest.raises(InputError, match="input is 'bytes'; text or utf8 is needed"):
        ship(tiny_bundle, output=tmp_path / "other", takes="bytes")


def test_another_vector_is_no_copy(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the graph of the other input were wrong about one character."""
    monkeypatch.setattr("edgeleaf.graph.tokenizers.utf8._SURROGATES", slice(ord("é"), ord("é") + 1))
    with pytest.raises(BundleError, match=r"texts get different vectors from the new tokenizer graph"):
        ship(tiny_bundle, output=tmp_path / "utf8", keep_texts=True, takes="utf8")
    assert not (tmp_path / "utf8").exists()


def test_a_light_copy_is_not_put_where_something_else_is(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        ship(tiny_bundle, output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("quick")
def test_both_exporters_reach_the_same_certificate(tiny_student: Path, tmp_path: Path) -> None:
    """Int8 vectors are equal to the last bit, and so are all figures of the certificates from int8 on.

    The files themselves differ, in the order and the names of their nodes.
    """
    needs_optimum()
    (tmp_path / "texts.txt").write_text("\n".join(tiny_texts(300, low=3, high=12, seed=71)))
    vectors, certificates = [], []
    for exporter in ("torch", "optimum"):
        output = tmp_path / exporter
        edgeleaf.export(str(tiny_student), output=output, exporter=exporter, texts=[tmp_path / "texts.txt"])
        vectors.append(QueryEncoder.load(output).encode(tiny_texts(50, low=1, high=40, seed=72)))
        certificates.append(json.loads((output / "certificate.json").read_text(encoding="utf-8")))
        rungs = {rung["name"]: rung for rung in certificates[-1].pop("rungs")}
        certificates[-1]["rungs"] = [rungs[name] for name in ("student", "onnx_quantized", "fused")]
        for of_the_file in ("sizes_mb", "file_sha256"):
            del certificates[-1][of_the_file]
    np.testing.assert_array_equal(*vectors)
    assert certificates[0] == certificates[1]
