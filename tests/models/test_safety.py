"""A model's folder is inspected before it is loaded: code in it, which would write a file, never runs."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeleaf.errors import ModelError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.models.safety import check_data_only, check_model
from edgeleaf.pipeline.preflight import export_spec
from edgeleaf.training.student import build_student, save_student


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Path:
    """A student as edgeleaf writes it."""
    folder = tmp_path_factory.mktemp("student") / "student"
    save_student(build_student(tiny_student, dim=48, max_length=48, query_prompt="q: "), folder)
    return folder


@pytest.fixture
def copy(student: Path, tmp_path: Path) -> Path:
    return shutil.copytree(student, tmp_path / "copy")


def edit(path: Path, change: Callable[[object], object]) -> None:
    value = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(change(value)))


def with_keys(name: str, **keys: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, lambda value: {**value, **keys})  # type: ignore[dict-item]


def with_type(kind: object, place: object = None) -> Callable[[Path], None]:
    def change(modules: object) -> object:
        modules[1]["type"] = kind  # type: ignore[index]
        if place is not None:
            modules[1]["path"] = place  # type: ignore[index]
        return modules

    return lambda folder: edit(folder / "modules.json", change)


def with_file(name: str, data: bytes = b"x") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


def with_link(name: str, target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


class Marker:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


POOLING = "sentence_transformers.models.Pooling"
NOT_DATA = {
    "code": (with_file("modeling.py", b"raise SystemExit"), "modeling.py: code"),
    "compiled": (with_file("modeling.pyc"), "modeling.pyc: code"),
    "library": (with_file("lib.so"), "lib.so: code"),
    "code-below": (with_file("1_Pooling/x.py"), "1_Pooling/x.py: code"),
    "pickled": (with_file("pytorch_model.bin"), "pytorch_model.bin: pickled weights"),
    "pickled-module": (with_file("2_Dense/pytorch_model.PT"), "pytorch_model.PT: pickled weights"),
    "other": (with_file("model.gguf"), "model.gguf: not a file that a student has"),
    "adapter": (with_file("adapter_config.json", b"{}"), "adapter_config.json: an adapter"),
    "auto-map": (with_keys("config.json", auto_map={"AutoModel": "m.M"}), "config.json: auto_map names code"),
    "auto-map-deep": (with_keys("config.json", a=[{"b": {"auto_map": {}}}]), "config.json: auto_map names code"),
    "auto-map-tokenizer": (with_keys("tokenizer_config.json", auto_map=["t.T", None]), "auto_map names code"),
    "trust": (
        with_keys("sentence_bert_config.json", model_args={"trust_remote_code": True}),
        "trust_remote_code names",
    ),
    "arguments": (with_keys("sentence_bert_config.json", model_args={"gguf_file": "x"}), "gguf_file is not for"),
    "method": (with_keys("sentence_bert_config.json", modality_config={"text": {"method": "save"}}), "another method"),
    "kernel": (with_keys("config.json", attn_implementation="org/kernel"), 'attn_implementation is "org/kernel"'),
    "quantized": (with_keys("config.json", quantization_config={}), "quantization_config is not for"),
    "vocab-elsewhere": (with_keys("tokenizer_config.json", vocab_file="/etc/passwd"), "vocab_file names a file"),
    "type-in-folder": (with_type("modeling.Pooling"), 'a module of type "modeling.Pooling"; allowed: Transformer'),
    "type-anywhere": (with_type("os.system"), 'a module of type "os.system"'),
    "type-of-theirs": (with_type("sentence_transformers.models.WordEmbeddings"), "WordEmbeddings"),
    "type-looks-like-it": (with_type("sentence_transformers.models.x\nPooling"), "a module of type"),
    "type-number": (with_type(3), "a module of type 3"),
    "path-up": (with_type(POOLING, "../other"), '"../other" is not a path inside the folder'),
    "path-absolute": (with_type(POOLING, "/tmp"), '"/tmp" is not a path inside the folder'),
    "path-number": (with_type(POOLING, 3), "3 is not a path inside the folder"),
    "modules-table": (lambda folder: edit(folder / "modules.json", lambda _: {}), "not a list of modules"),
    "activation": (
        with_keys("2_Dense/config.json", activation_function="torch.distributed.init_process_group"),
        'activation_function is "torch.distributed',
    ),
    "link": (with_link("vocab.txt", "/etc/hostname"), '"vocab.txt" is a link'),
    "link-inside": (with_link("vocab.txt", "config.json"), '"vocab.txt" is a link'),
    "link-folder": (with_link("more", "/etc"), '"more" is a link'),
    "deep": (with_file("config.json", b"[" * 100_000), "brackets nested deeper"),
    "nan": (with_file("config.json", b'{"a": NaN}'), "NaN is not a number"),
    "twice": (with_file("config.json", b'{"a": 1, "a": 2}'), "occurs twice"),
    "bytes": (with_file("config.json", b"\xff\xfe"), "not UTF-8"),
}


def test_what_edgeleaf_writes_is_data(student: Path) -> None:
    check_data_only(student)
    check_model(student)


@pytest.mark.parametrize("change,message", NOT_DATA.values(), ids=NOT_DATA)
def test_what_is_not_data_is_refused_by_name(copy: Path, change: Callable[[Path], None], message: str) -> None:
    change(copy)
    with pytest.raises(ModelError) as raised:
        check_data_only(copy)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(copy) in str(raised.value)


def own_code(folder: Path, marker: Path) -> None:
    """Give a model a pooling of its own, whose import writes ``marker``."""
    (folder / "own_pooling.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
        "from sentence_transformers.models import Pooling as Base\n\n\nclass Pooling(Base):\n    pass\n"
    )
    with_type("own_pooling.Pooling")(folder)


def test_code_in_a_folder_is_run_only_when_it_is_asked_for(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    own_code(copy, marker)
    with pytest.raises(ModelError, match='a module of type "own_pooling.Pooling"'):
        load_sentence_transformer(copy)
    with pytest.raises(ModelError, match='a module of type "own_pooling.Pooling"'):
        export_spec(str(copy), max_length=None, query_prompt=None)
    with pytest.raises(ModelError, match="a module of type"):
        build_student(copy, dim=48, max_length=48)
    assert not marker.exists()
    load_sentence_transformer(copy, trust_remote_code=True)
    assert marker.exists()  # so the file would have been written before
    with pytest.raises(ModelError, match="contains code of its own, and a bundle holds only data"):
        export_spec(str(copy), max_length=None, query_prompt=None, trust_remote_code=True)


def test_the_code_of_an_architecture_that_transformers_has_is_left_out(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (copy / "m.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    with_keys("config.json", auto_map={"AutoModel": "m.M", "AutoConfig": "m.C"})(copy)
    with_keys("tokenizer_config.json", auto_map={"AutoTokenizer": ["m.T", "m.T"]})(copy)
    model = load_sentence_transformer(copy)
    assert not marker.exists()
    save_student(model, tmp_path / "saved")  # which looks through what it has written


def test_pickled_weights_run_nothing(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (copy / "2_Dense/model.safetensors").unlink()
    (copy / "2_Dense/pytorch_model.bin").write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(ModelError, match="cannot load it"):
        load_sentence_transformer(copy)
    assert not marker.exists()


def header(data: bytes) -> tuple[dict[str, dict[str, object]], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def safetensors(tensors: object, numbers: bytes) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def other_shape(data: bytes) -> bytes:
    tensors, numbers = header(data)
    name = next(name for name in tensors if name != "__metadata__")
    tensors[name]["shape"] = [3, 5]
    return safetensors(tensors, numbers)


def other_kind(data: bytes) -> bytes:
    tensors, numbers = header(data)
    name = next(name for name in tensors if name != "__metadata__")
    tensors[name]["dtype"] = "F17"
    return safetensors(tensors, numbers)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"5" * 64 + b"\nsize 90868376\n"
BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "pointer": (lambda _: POINTER, "a pointer of git-lfs, not the weights; fetch them: git lfs pull"),
    "half": (lambda data: data[: len(data) // 2], "its header gives"),
    "longer": (lambda data: data + b"\0", "its header gives"),
    "empty": (lambda _: b"", "0 bytes, without a valid safetensors header"),
    "short": (lambda _: b"\1\0\0", "without a valid safetensors header"),
    "huge-header": (lambda data: b"\xff" * 8 + data[8:], "without a valid safetensors header"),
    "no-json": (lambda _: b"\4\0\0\0\0\0\0\0abcd", "not JSON"),
    "list": (lambda _: safetensors([], b""), "invalid safetensors header"),
    "shape": (other_shape, "whose size does not fit its shape"),
    "kind": (other_kind, "is not described"),
    "nan": (lambda data: data[:-4] + b"\xff\xff\xff\x7f", "holds numbers that are not finite"),
}


@pytest.mark.parametrize("change,message", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["model.safetensors", "2_Dense/model.safetensors"])
def test_broken_weights_are_one_line(copy: Path, name: str, change: Callable[[bytes], bytes], message: str) -> None:
    (copy / name).write_bytes(change((copy / name).read_bytes()))
    with pytest.raises(ModelError) as raised:
        load_sentence_transformer(copy)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_hub_caches_links_are_no_links(copy: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--x/blobs", tmp_path / "models--x/snapshots/r"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(copy.rglob("*"))):
        target = snapshot / path.relative_to(copy)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(number))
        target.symlink_to(blobs / str(number))
    check_data_only(snapshot)
    (tmp_path / "secret").write_text("x")
    (snapshot / "tokenizer_config.json").unlink()
    (snapshot / "tokenizer_config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="is a link"):
        check_data_only(snapshot)
