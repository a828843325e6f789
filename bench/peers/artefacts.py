"""Makes the files that each peer loads, once, from a bundle's student and its teacher, one folder per artefact.

An existing folder is made again only if the bundle, this file or a package that makes it has changed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bench.studies.quantization import quantize_dynamically
from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.errors import BundleError
from edgeleaf.files import sha256, write_json
from edgeleaf.graph.builder import IR_VERSION
from edgeleaf.graph.export import export_onnx
from edgeleaf.graph.fuse import encoder_of
from edgeleaf.models.weights import weights_sha256

MODEL = "onnx/model.onnx"
BUILDERS = Path(__file__).parent / "builders"


@dataclass(frozen=True)
class Given:
    """The inputs from which artefacts are made.

    Args:
        bundle: a bundle folder.
        teacher: its teacher's folder.
        made: folders of finished artefacts, by name.
        python: the interpreter of an environment, by its name.
        max_length: the student's window in tokens.
        teacher_max_length: the teacher's window in tokens.
    """

    bundle: Path
    teacher: Path
    made: Path
    python: Callable[[str], Path]
    max_length: int
    teacher_max_length: int

    @property
    def student(self) -> Path:
        return self.bundle / layout.STUDENT

    @cached_property
    def key(self) -> dict[str, str]:
        """Return everything that an artefact depends on."""
        return {
            "fused": sha256(self.bundle / layout.QUERY_ENCODER),
            "student": weights_sha256(self.student),
            "teacher": weights_sha256(self.teacher),
            "windows": f"{self.max_length}, {self.teacher_max_length}",
            "makers": "-".join(sha256(path)[:12] for path in (Path(__file__), *sorted(BUILDERS.glob("*.py")))),
            **{name: metadata.version(name) for name in ("onnxruntime", "sentence-transformers")},
        }


Make = Callable[[Given, Path], None]


def artefact(name: str, given: Given) -> Path:
    """Return the folder of an artefact; make it if it does not exist or was made from other inputs."""
    if name == "bundle":
        return given.bundle
    if name == "student":
        return given.student
    if name == "teacher":
        return given.teacher
    folder, key = given.made / name, given.key
    stamp = given.made / f"{name}.json"
    if folder.is_dir() and stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == key:
        return folder
    progress.say(f"artefact: {name}")
    shutil.rmtree(folder, ignore_errors=True)
    write_json(stamp, key)
    with tempfile.TemporaryDirectory(dir=given.made) as scratch:
        target = Path(scratch) / name
        target.mkdir()
        MAKERS[name](given, target)
        target.rename(folder)
    return folder


def _sentence_transformer(*kind: str) -> Make:
    """Write what sentence-transformers exports: the trunk as ONNX, beside its modules."""

    def make(given: Given, target: Path) -> None:
        _run(given, "sentence-transformers-onnx", "sentence_transformer.py", given.student, target, *kind)

    return make


def _whole_fp32(given: Given, target: Path) -> None:
    _write_tokenizer(given.student, target, given.max_length)
    onnx.save(export_onnx(given.student), target / MODEL)


def _whole_int8(given: Given, target: Path) -> None:
    """Write onnxruntime's dynamic quantisation, one scale per column."""
    _write_tokenizer(given.student, target, given.max_length)
    quantize_dynamically(artefact("whole-fp32", given) / MODEL, target / MODEL)


def _whole_int8_js(given: Given, target: Path) -> None:
    """Write the same under the name that transformers.js expects."""
    shutil.copytree(artefact("whole-int8", given), target, dirs_exist_ok=True)
    (target / MODEL).rename(target / "onnx" / "model_quantized.onnx")


def _whole_int8_flat(given: Given, target: Path) -> None:
    """Write the same as libembedding looks for it: the graph beside its configuration, which tells the width."""
    shutil.copytree(artefact("whole-int8", given), target, dirs_exist_ok=True)
    (target / MODEL).rename(target / "model.onnx")
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    write_json(target / "config.json", config | {"hidden_size": layout.Manifest.read(given.bundle).space.dim})


def _whole_edgeleaf(given: Given, target: Path) -> None:
    """Write the fused file without its tokenizer: from token ids to the unit vector."""
    fused = onnx.load(given.bundle / layout.QUERY_ENCODER)
    _write_tokenizer(given.student, target, given.max_length)
    onnx.save(encoder_of(fused), target / MODEL)


def _write_tokenizer(folder: Path, target: Path, max_length: int) -> None:
    """Write the files that tokenizers and loaders need beside a graph from ids to unit vector."""
    (target / MODEL).parent.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        for path in (folder / name, folder / "0_Transformer" / name):
            if path.is_file():
                shutil.copy(path, target / name)
    tokenizer = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["truncation"] = {
        "direction": "Right",
        "max_length": max_length,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    pad = next(token for token in tokenizer["added_tokens"] if token["content"] in ("[PAD]", "<pad>"))
    # The student's own file pads every text to one length, which makes libraries that apply it slow; this one does not.
    tokenizer["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": pad["id"],
        "pad_type_id": 0,
        "pad_token": pad["content"],
    }
    write_json(target / "tokenizer.json", tokenizer)
    config = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(target / "tokenizer_config.json", {**config, "model_max_length": max_length})
    if not (target / "special_tokens_map.json").is_file():
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        write_json(target / "special_tokens_map.json", {name: config[name] for name in names if name in config})


def _teacher_onnx(given: Given, target: Path) -> None:
    _write_tokenizer(given.teacher, target, given.teacher_max_length)
    onnx.save(export_onnx(given.teacher), target / MODEL)


def _extensions(given: Given, target: Path) -> None:
    """Write BertTokenizer, a custom operator, in front of the int8 graph."""
    from bench.studies.tokenizer_peer import bert_tokenizer_graph

    encoder = onnx.load(artefact("whole-int8", given) / MODEL)
    tokenizer = bert_tokenizer_graph((given.student / "tokenizer.json").read_text(encoding="utf-8"))
    nodes = list(tokenizer.graph.node)
    axis = onnx.numpy_helper.from_array(np.array([0]), "first_axis")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        for node in nodes[:1]:
            node.output[:] = [f"{name}/row" if made == name else made for made in node.output]
        nodes.append(onnx.helper.make_node("Unsqueeze", [f"{name}/row", "first_axis"], [name]))
    graph = onnx.helper.make_graph(
        [*nodes, *encoder.graph.node],
        "fused",
        list(tokenizer.graph.input),
        list(encoder.graph.output),
        initializer=[axis, *encoder.graph.initializer],
    )
    opsets = {opset.domain: opset.version for opset in encoder.opset_import} | {"ai.onnx.contrib": 1}
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION), target / "model.onnx")


def _gguf(kind: str) -> Make:
    def make(given: Given, target: Path) -> None:
        _build(given, "gguf-build", "gguf.py", given.student, target, kind)
        for path in given.student.rglob("*"):  # for the head, which llama.cpp does not contain
            inside = path.relative_to(given.student)
            if path.name == "modules.json" or (path.is_file() and inside.parts[0][:1] in "123456789"):
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target / inside)

    return make


def _static(given: Given, target: Path) -> None:
    _build(given, "model2vec-build", "static.py", given.teacher, target)


def _build(given: Given, environment: str, script: str, model: Path, target: Path, *arguments: str) -> None:
    """Run a script of bench/peers/builders in its own environment on a model's trunk."""
    with tempfile.TemporaryDirectory() as scratch:
        trunk = Path(scratch) / "trunk"
        write_trunk(model, trunk)
        _run(given, environment, script, trunk, target, *arguments)


def _run(given: Given, environment: str, script: str, model: Path, target: Path, *arguments: str) -> None:
    command: list[Any] = [given.python(environment), "-P", BUILDERS / script, model, target, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BundleError(f"{script} could not build its artefact: {last}")


def write_trunk(folder: Path, trunk: Path) -> None:
    """Write only transformer and tokenizer of a sentence-transformers model, in transformers' format and float32."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model[0].auto_model.float().save_pretrained(trunk)
    model.tokenizer.save_pretrained(trunk)


MAKERS: dict[str, Make] = {
    "st-onnx": _sentence_transformer(),
    "st-o3": _sentence_transformer("O3"),
    "st-int8": _sentence_transformer("avx512_vnni"),
    "st-int8-avx2": _sentence_transformer("avx2"),
    "whole-fp32": _whole_fp32,
    "whole-int8": _whole_int8,
    "whole-int8-js": _whole_int8_js,
    "whole-int8-flat": _whole_int8_flat,
    "whole-edgeleaf": _whole_edgeleaf,
    "extensions-int8": _extensions,
    "gguf-q8": _gguf("q8_0"),
    "gguf-q4": _gguf("q4_0"),
    "static": _static,
    "teacher-onnx": _teacher_onnx,
}


def size_mb(folder: Path, *, of: str) -> float:
    """Return the size in 10^6 bytes of what a user has to ship of an artefact; of a bundle, only its fused file."""
    files = [folder / layout.QUERY_ENCODER] if of == "bundle" else [p for p in folder.rglob("*") if p.is_file()]
    return round(sum(path.stat().st_size for path in files) / 1e6, 2)
