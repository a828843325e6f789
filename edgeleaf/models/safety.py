"""Checks what a model's folder contains, before anything in it is loaded.

sentence-transformers 5 runs a local folder's own code: a module that ``modules.json`` names is imported, from the
folder or from anywhere. transformers asks before it runs code, but loads kernels and adapters that a configuration
names. So folders are inspected here first. There are two standards:

- a model that the user names (a teacher, a model to export) runs no code of its own, unless the user allows it;
- the student of a bundle is data: the modules that edgeleaf writes, safetensors, JSON, texts, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeleaf.errors import ModelError
from edgeleaf.models.tensors import check_tensors
from edgeleaf.records import RecordError, inside, read_json, shown

WRITTEN_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
"""Types of modules that a bundle's student may have."""
MOST_JSON_BYTES = 512 << 20
MOST_FILES = 10_000
_MODULE = re.compile(r"sentence_transformers\.(models|base\.modules|sentence_transformer\.modules)(\.\w+)*\.([A-Z]\w*)")
_ACTIVATION = re.compile(r"torch\.nn\.modules\.(activation|linear)\.[A-Z]\w*")
_DATA_SUFFIXES = frozenset({".json", ".jsonl", ".txt", ".safetensors", ".model", ".md", ".svg", ".jinja"})
_PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack"})
_CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})
_ATTENTION_KEYS = frozenset({"attn_implementation", "_attn_implementation", "_attn_implementation_internal"})
_ATTENTION = frozenset({None, "eager", "sdpa"})
_TRANSFORMER_KEYS = frozenset(
    {"max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name", "query_length"}
    | {"document_length", "processing_kwargs", "unpad_inputs", "message_format", "track_media_counts"}
)
_TRANSFORMER_CONFIG = re.compile(r"sentence_\w+_config\.json|sentence_xlm-roberta_config\.json")


def check_model(folder: Path) -> None:
    """Inspect the folder of a model that the user named, and refuse whatever would run code of its own.

    Custom code for architectures that transformers has itself is not refused, because it is not used for loading.

    Raises:
        ModelError: a module that is not one of sentence-transformers' own, a path out of the folder, kernels from
            elsewhere, damaged weights; one line that names the file.
    """
    modules = folder / "modules.json"
    places = [folder]
    if modules.is_file():
        places += _check_modules(folder, _read(modules), None)
    for path in (path for place in places if place.is_dir() for path in sorted(place.glob("*config*.json"))):
        for key, part in _parts(_read(path)):
            if key in _ATTENTION_KEYS and isinstance(part, str) and "/" in part:
                raise ModelError(f"{path}: {key} is {shown(part)}; attention code from elsewhere is not run")
            if key == "activation_function":
                _check_activation(path, part)
    check_tensors(folder)


def check_data_only(folder: Path) -> None:
    """Inspect the student of a bundle, and refuse everything except data of the kinds that edgeleaf writes.

    Raises:
        ModelError: code, ``auto_map``, pickled weights, links, other modules, files that name other models, damaged
            weights; one line that names the file.
    """
    what = "a bundle's student is data"
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        try:
            inside(folder, name)
        except RecordError as error:
            raise ModelError(f"{folder}: {error}; {what}") from None
        if path.is_dir():
            continue
        suffix = path.suffix.lower()
        if suffix.startswith(".py") or suffix in (".so", ".dll", ".dylib", ".sh"):
            raise ModelError(f"{path}: code; {what}, and code in it is not run")
        if suffix in _PICKLED:
            raise ModelError(f"{path}: pickled weights, which can run code; {what}: only .safetensors are read")
        if suffix not in _DATA_SUFFIXES or not path.is_file():
            raise ModelError(f"{path}: not a file that a student has; {what} ({', '.join(sorted(_DATA_SUFFIXES))})")
        if path.name in ("adapter_config.json", "adapter_model.safetensors"):
            raise ModelError(f"{path}: an adapter, which loads another model; {what}")
        if suffix == ".json":
            _check_student_json(folder, path)
    if not (folder / "modules.json").is_file():
        raise ModelError(f"{folder}: no modules.json; give a bundle as edgeleaf wrote it")
    check_tensors(folder)


def _check_student_json(folder: Path, path: Path) -> None:
    value = _read(path)
    for key, part in _parts(value):
        if key in _CODE_KEYS and type(part) is not int:  # a key with a number as value is a token of a vocabulary
            raise ModelError(f"{path}: {key} names code; a bundle's student is data, and code in it is not run")
        if key in _ATTENTION_KEYS and (not isinstance(part, (str, type(None))) or part not in _ATTENTION):
            raise ModelError(f"{path}: {key} is {shown(part)}; allowed: eager, sdpa")
        if key in ("quantization_config", "use_kernels", "gguf_file"):
            raise ModelError(f"{path}: {key} is not for a bundle's student, which is in float32 or float16")
        if key == "activation_function":
            _check_activation(path, part)
    if path.name == "modules.json":
        _check_modules(folder, value, WRITTEN_MODULES)
    if path.name == "tokenizer_config.json":
        for key in ("tokenizer_file", "vocab_file", "merges_file"):
            if isinstance(value, dict) and value.get(key) is not None:
                raise ModelError(f"{path}: {key} names a file; the student's own is read")
    if _TRANSFORMER_CONFIG.fullmatch(path.name):
        _check_transformer(path, value)


def _check_transformer(path: Path, value: Any) -> None:
    """Refuse arguments for transformers' loaders, and encoder methods other than ``forward``."""
    if not isinstance(value, dict):
        raise ModelError(f"{path}: not a table")
    if unknown := [key for key in value if key not in _TRANSFORMER_KEYS and value[key] not in ({}, None)]:
        raise ModelError(f"{path}: {shown(unknown[0])} is not a setting of a student that edgeleaf writes")
    modalities = value.get("modality_config") or {}
    if not isinstance(modalities, dict):
        raise ModelError(f"{path}: modality_config is {shown(modalities)}; a table is needed")
    for name, settings in modalities.items():
        if not isinstance(settings, dict) or settings.get("method", "forward") != "forward":
            raise ModelError(f"{path}: modality_config.{name[:40]} names another method than forward")


def _check_modules(folder: Path, modules: Any, kinds: tuple[str, ...] | None) -> list[Path]:
    """Check that modules are sentence-transformers' own, and of ``kinds`` if given; return their folders."""
    places = []
    path = folder / "modules.json"
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path}: not a list of modules; fetch the model again")
    for module in modules:
        kind, place = module.get("type"), module.get("path")
        found = _MODULE.fullmatch(kind) if isinstance(kind, str) else None
        if found is None or (kinds is not None and found[3] not in kinds):
            allowed = (
                f"; allowed: {', '.join(kinds)} of sentence-transformers"
                if kinds
                else ("; code of a model's own is run only for teacher.trust_remote_code = true in a recipe")
            )
            raise ModelError(f"{path}: a module of type {shown(kind)}{allowed}")
        try:
            if not isinstance(place, str):
                raise RecordError(f"{shown(place)} is not a path inside the folder")
            if place:
                places.append(inside(folder, place))
        except RecordError as error:
            raise ModelError(f"{path}: {error}") from None
    return places


def _check_activation(path: Path, value: Any) -> None:
    if value is not None and not (isinstance(value, str) and _ACTIVATION.fullmatch(value)):
        raise ModelError(f"{path}: activation_function is {shown(value)}; one of torch.nn.modules.activation is needed")


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the contents of a folder; links are not followed."""
    count = 0
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        for path in sorted(here.iterdir()):
            count += 1
            if count > MOST_FILES:
                raise ModelError(f"{folder}: more than {MOST_FILES} files")
            yield path
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)


def _read(path: Path) -> Any:
    try:
        return read_json(path, most_bytes=MOST_JSON_BYTES)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except RecordError as error:
        raise ModelError(f"{path}: damaged ({error}); fetch or copy the model again") from None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of every table in a value, with its value."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
