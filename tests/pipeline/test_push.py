"""A push to, and a load from, a stand-in for the hub (tests/hub.py): what arrives, what fails, and how that reads."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeleaf
from edgeleaf import QueryEncoder
from edgeleaf.bundle.feed import feed_of
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import CERTIFICATE, GOLDEN, MODEL_CARD, QUERY_ENCODER, STUDENT, Manifest, hash_files
from edgeleaf.bundle.session import session
from edgeleaf.errors import BundleError, GateFailed, InputError, ModelError
from edgeleaf.pipeline.push import TRANSFORMERS_JS, hub_card, push
from tests.conftest import needs
from tests.hub import DROP, TOKEN, Hub, stand_in
from tests.pipeline.test_wheel import with_certificate

NAME = "acme/queries"
TEXTS = ["lost parcel", "", "👩‍👩‍👧‍👦 \0 é"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in that huggingface_hub talks to, with a token and a cache of the test's own."""
    needs("huggingface_hub", "onnx")
    from huggingface_hub import constants, file_download

    with stand_in() as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        for module in (constants, file_download):  # the second one before huggingface_hub 1
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        forget_sessions()
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub waits before it tries again
        yield server
    forget_sessions()


def forget_sessions() -> None:
    """Make huggingface_hub before 1.0 read its settings again; later versions do so with every request."""
    from huggingface_hub.utils import _http

    getattr(_http, "reset_sessions", lambda: None)()


@pytest.fixture(scope="module")
def shipped(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle as if ``edgeleaf ship`` had made it: its texts may be given away."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("shipped") / "tiny")
    manifest = Manifest.read(folder)
    replace(manifest, student={**manifest.student, "stored": "float16"}).write(folder)
    return folder


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget_sessions()


def test_what_is_pushed_loads_by_its_name_and_then_offline(
    hub: Hub, shipped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = QueryEncoder.load(shipped).encode(TEXTS)
    assert push(shipped, NAME).startswith(f"{hub.url}/{NAME}/commit/")
    assert len(hub.repositories[NAME].commits) == 1
    hub.log.clear()
    np.testing.assert_array_equal(QueryEncoder.load(NAME).encode(TEXTS), expected)
    fetched = {line.split()[1].partition("/resolve/")[2].partition("/")[2] for line in hub.log if "/resolve/" in line}
    assert fetched == {"edgeleaf.json", "query_encoder.onnx", "certificate.json", "config.json"}
    hub.log.clear()
    offline(monkeypatch)
    np.testing.assert_array_equal(QueryEncoder.load(NAME).encode(TEXTS), expected)
    assert hub.log == []
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err


def test_the_commit_is_the_bundle_and_what_others_open(hub: Hub, shipped: Path, tmp_path: Path) -> None:
    push(shipped, NAME)
    for name, data in hub.files(NAME).items():
        (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "got" / name).write_bytes(data)
    got = tmp_path / "got"
    manifest = Manifest.read(got)
    manifest.verify(got)
    assert {name for name in Manifest.read(shipped).files if not name.startswith("onnx/")} == manifest.files.keys()
    config = json.loads((got / "config.json").read_text(encoding="utf-8"))
    assert config == json.loads((shipped / STUDENT / "config.json").read_text(encoding="utf-8"))
    assert (got / "tokenizer.json").read_bytes() == (shipped / STUDENT / "tokenizer.json").read_bytes()
    assert [path.name for path in (got / "onnx").iterdir()] == ["model_quantized.onnx"]


def test_the_encoder_for_transformers_js_gives_the_same_vectors(hub: Hub, shipped: Path, tmp_path: Path) -> None:
    """From the token ids that its tokenizer gives, in a batch: Dense and the norm are inside."""
    push(shipped, NAME)
    opened = session(hub.files(NAME)[TRANSFORMERS_JS], threads=1)
    assert [one.name for one in opened.get_inputs()] == ["input_ids", "attention_mask"]
    assert [one.name for one in opened.get_outputs()] == ["sentence_embedding"]
    entries = read_golden(shipped)
    width = max(len(entry["input_ids"]) for entry in entries)
    ids = np.zeros((len(entries), width), np.int64)
    mask = np.zeros_like(ids)
    for row, entry in enumerate(entries):
        ids[row, : len(entry["input_ids"])] = entry["input_ids"]
        mask[row, : len(entry["input_ids"])] = 1
    (found,) = opened.run(None, {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_array_equal(found, QueryEncoder.load(shipped).encode([entry["text"] for entry in entries]))
    assert callable(feed_of)


def test_the_card_has_metadata_that_the_hub_understands(hub: Hub, shipped: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    push(shipped, NAME)
    card = ModelCard(hub.files(NAME)[MODEL_CARD].decode())
    assert card.data.library_name == "edgeleaf"
    assert card.data.pipeline_tag == "feature-extraction"
    assert {"sentence-embeddings", "onnx", "query-encoder", "transformers.js"} <= set(card.data.tags)
    assert card.data.base_model is None  # the tiny student comes from a folder of this machine
    assert f'QueryEncoder.load("{NAME}")' in card.text
    assert "path/of/this/folder" not in card.text
    assert card.text.count("## transformers.js") == 1


def test_a_card_keeps_what_a_user_added(shipped: Path) -> None:
    needs("huggingface_hub")
    from huggingface_hub import ModelCard

    manifest = replace(Manifest.read(shipped), student={"start": "sentence-transformers/all-MiniLM-L6-v2"})
    text = "---\nlicense: apache-2.0\ntags: [mine]\nlanguage: de\n---\n# Ours\n\nNotes.\n"
    made = hub_card(text, manifest, NAME, javascript=True)
    again = hub_card(made, manifest, NAME, javascript=True)
    assert made == again
    card = ModelCard(made)
    assert (card.data.license, card.data.language) == ("apache-2.0", "de")
    assert card.data.tags[0] == "mine"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert "Notes." in card.text
    assert ModelCard(hub_card("no metadata\n", manifest, NAME, javascript=False)).data.library_name == "edgeleaf"


def test_a_second_push_adds_a_commit(hub: Hub, shipped: Path) -> None:
    first = push(shipped, NAME)
    uploads = [line for line in hub.log if line.startswith("PUT")]
    assert push(shipped, NAME) != first
    assert len(hub.repositories[NAME].commits) == 2
    assert [line for line in hub.log if line.startswith("PUT")] == uploads, "the hub has the large files already"


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("POST /api/repos/create", 401, "the hub has no acme/queries, or you may not see or change it; "),
        ("POST /api/repos/create", 403, "the hub answered 403: your token may not do this"),
        ("POST /api/repos/create", 500, "the hub answered 500; try again later"),
        ("POST /api/repos/create", DROP, "the connection to the hub failed"),
        ("POST /api/validate-yaml", 400, "the hub answered 400: Invalid metadata in README.md"),
        ("POST .*/preupload/", 500, "the hub answered 500; try again later"),
        ("POST .*/objects/batch", 429, "the hub answered 429; try again later"),
        ("PUT /lfs/", 500, "the hub answered 500; try again later"),
        ("PUT /lfs/", DROP, "the connection to the hub failed"),
        ("POST .*/commit/", 401, "the hub has no acme/queries, or you may not see or change it; "),
        ("POST .*/commit/", 409, "the hub answered 409: somebody else is changing acme/queries; repeat the command"),
        ("POST .*/commit/", 412, "the hub answered 412: somebody else is changing acme/queries; repeat the command"),
        ("POST .*/commit/", DROP, "the connection to the hub failed"),
    ],
)
def test_a_failed_push_commits_nothing_and_is_one_line(
    hub: Hub, shipped: Path, fault: str, status: int, said: str
) -> None:
    hub.faults[fault] = status
    with pytest.raises(BundleError) as caught:
        push(shipped, NAME)
    line = str(caught.value)
    assert line.startswith(f"{NAME}: nothing was committed: {said}"), line
    assert "\n" not in line
    assert TOKEN not in line
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert NAME not in hub.repositories or not hub.repositories[NAME].commits
    hub.faults.clear()
    push(shipped, NAME)
    assert len(hub.repositories[NAME].commits) == 1


def test_a_wrong_token_is_not_shown(hub: Hub, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_secret")
    with pytest.raises(BundleError, match="or you may not see or change it") as caught:
        push(shipped, NAME)
    assert "hf_wrong_secret" not in str(caught.value)
    assert hub.repositories == {}


def test_what_keeps_the_hub_away_is_named(hub: Hub, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(BundleError, match="nothing was committed: HF_HUB_OFFLINE is set; unset it"):
            push(shipped, "acme/queries")
    monkeypatch.setattr(constants, "ENDPOINT", "me:hub")
    with pytest.raises(BundleError, match='nothing was committed: HF_ENDPOINT is "me:hub"; a URL such as'):
        push(shipped, "acme/queries")


def test_a_bundle_that_failed_a_gate_is_never_pushed(hub: Hub, shipped: Path, tmp_path: Path) -> None:
    failed = with_certificate(shutil.copytree(shipped, tmp_path / "failed"), ok=False)
    with pytest.raises(GateFailed, match="failed is not handed on: gate cosine_mean"):
        push(failed, NAME)
    assert hub.log == []


def without_certificate(folder: Path) -> None:
    (folder / CERTIFICATE).unlink()
    replace(Manifest.read(folder), files=hash_files(folder)).write(folder)


def with_code(folder: Path) -> None:
    (folder / STUDENT / "modeling.py").write_text("import os")
    replace(Manifest.read(folder), files=hash_files(folder)).write(folder)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (lambda folder: (folder / QUERY_ENCODER).write_bytes(b"x"), BundleError, "damaged: sha256"),
        (lambda folder: (folder / GOLDEN).unlink(), BundleError, "missing, though"),
        (lambda folder: (folder / STUDENT / "new.txt").write_text("x"), BundleError, "lists no such file"),
        (without_certificate, BundleError, "has no certificate that its edgeleaf.json lists"),
        (with_code, ModelError, "code; a bundle's student is data"),
    ],
)
def test_a_bundle_that_is_not_whole_is_never_pushed(
    hub: Hub, shipped: Path, tmp_path: Path, spoil: Callable[[Path], Any], kind: type[Exception], message: str
) -> None:
    spoilt = shutil.copytree(shipped, tmp_path / "spoilt")
    spoil(spoilt)
    with pytest.raises(kind, match=message):
        push(spoilt, NAME)
    assert hub.log == []


def test_own_texts_are_not_published(hub: Hub, tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="holds texts of its own .* edgeleaf ship .* or push it with --private"):
        push(tiny_bundle, NAME)
    assert hub.log == []
    push(tiny_bundle, NAME, private=True)
    assert hub.repositories[NAME].private
    hub.commit("acme/public", {})
    with pytest.raises(InputError, match="everybody may read acme/public"):
        push(tiny_bundle, "acme/public", private=True)
    assert hub.files("acme/public") == {}


@pytest.mark.parametrize(
    "name",
    ["queries", "a/b/c", "", "../x/y", "acme/ queries", "https://hub/acme/x", f"u:{TOKEN}@hub/x", "-a/b", None, 3],
)
def test_a_repository_is_owner_and_name(hub: Hub, shipped: Path, name: Any) -> None:
    with pytest.raises(InputError, match="owner/name is needed") as caught:
        push(shipped, name)
    assert TOKEN not in str(caught.value)
    assert hub.log == []


def test_a_private_bundle_needs_the_token(hub: Hub, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(shipped, NAME, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(BundleError) as caught:
        QueryEncoder.load(NAME)
    assert str(caught.value) == (
        f"{NAME} is not on this machine: the hub has no {NAME}, or you may not see or change it; check the name, "
        "and the token in HF_TOKEN"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the hub has no acme/queries, or you may not see or change it"),
        (500, "the hub cannot be reached, and its cache does not have it|the hub answered 500"),
        (DROP, "the connection to the hub failed|the hub cannot be reached"),
    ],
)
def test_a_failed_load_is_one_line(hub: Hub, shipped: Path, status: int, said: str) -> None:
    push(shipped, NAME)
    hub.faults["GET /api/models/"] = status
    with pytest.raises(BundleError, match=f"^acme/queries is not on this machine: ({said})") as caught:
        QueryEncoder.load(NAME)
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_down_does_not_matter_once_it_is_fetched(hub: Hub, shipped: Path) -> None:
    push(shipped, NAME)
    expected = QueryEncoder.load(NAME).encode(TEXTS)
    hub.faults["GET /api/models/"] = 500
    np.testing.assert_array_equal(QueryEncoder.load(NAME).encode(TEXTS), expected)


def test_a_file_that_arrives_damaged_is_refused(hub: Hub, shipped: Path) -> None:
    push(shipped, NAME)
    files = dict(hub.files(NAME))
    files[QUERY_ENCODER] = files[QUERY_ENCODER][:-1] + b"\1"
    hub.commit(NAME, files)
    with pytest.raises(BundleError, match=r"query_encoder\.onnx: damaged: sha256"):
        QueryEncoder.load(NAME)


def test_a_dropped_download_is_fetched_again(hub: Hub, shipped: Path) -> None:
    push(shipped, NAME)
    hub.faults[f"GET .*/resolve/.*{QUERY_ENCODER}"] = DROP
    with pytest.raises(BundleError, match="^acme/queries is not on this machine: the connection to the hub failed"):
        QueryEncoder.load(NAME)
    hub.faults.clear()
    assert QueryEncoder.load(NAME).encode(TEXTS).shape[0] == len(TEXTS)


def test_a_revision_pins_a_commit(hub: Hub, shipped: Path, utf8_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = push(shipped, NAME).rpartition("/")[2]
    push(utf8_bundle, NAME)
    assert QueryEncoder.load(NAME).input == "utf8"
    assert QueryEncoder.load(NAME, revision=first).input == "text"
    offline(monkeypatch)
    assert QueryEncoder.load(NAME, revision=first).input == "text"
    with pytest.raises(BundleError, match="it is not in the hub's cache, and HF_HUB_OFFLINE is set"):
        QueryEncoder.load(NAME, revision="0" * 40)


def test_an_unknown_revision_is_named(hub: Hub, shipped: Path) -> None:
    push(shipped, NAME)
    with pytest.raises(BundleError, match="acme/queries has no revision 'v9' on the hub; check it, or leave it out$"):
        QueryEncoder.load(NAME, revision="v9")


def test_another_model_of_the_hub_is_not_a_bundle(hub: Hub) -> None:
    hub.commit("acme/other", {"config.json": b"{}", "model.safetensors": b"x" * 20_000})
    with pytest.raises(BundleError, match="^acme/other on the hub is not a bundle: it has no edgeleaf.json; "):
        QueryEncoder.load("acme/other")


def test_a_hostile_manifest_is_one_line(hub: Hub) -> None:
    for data in (b"", b"[]", b"{" * 5000, b'{"schema_version": 1}', b"\xff", b'{"schema_version": 99}'):
        hub.commit("acme/hostile", {"edgeleaf.json": data, QUERY_ENCODER: b"x" * 20_000})
        with pytest.raises(BundleError) as caught:
            QueryEncoder.load("acme/hostile")
        assert "\n" not in str(caught.value)


def test_the_public_function_is_there() -> None:
    assert edgeleaf.push is push
