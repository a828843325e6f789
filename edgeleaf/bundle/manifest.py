"""What a bundle holds: its layout, its manifest, the hashes of its files, and the identity of its vector space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeleaf.errors import BundleError
from edgeleaf.files import sha256, write_json

SCHEMA_VERSION = 1

MANIFEST = "edgeleaf.json"
QUERY_ENCODER = "query_encoder.onnx"
ONNX_FP32 = "onnx/model.onnx"
STUDENT = "student"
GOLDEN = "golden.jsonl"
CERTIFICATE = "certificate.json"
CERTIFICATE_PAGE = "certificate.html"
LATENCY = "latency.json"
MODEL_CARD = "README.md"
HELD_OUT = "held_out.jsonl"

_UNHASHED = frozenset({MANIFEST, LATENCY, MODEL_CARD})
"""The manifest cannot hold its own hash; timings differ from run to run; a model card is there to be added to."""


@dataclass(frozen=True)
class VectorSpace:
    """The space that a vector lives in. Vectors of two spaces must never be compared.

    Args:
        teacher: the name it was loaded by, such as ``sentence-transformers/all-mpnet-base-v2``.
        revision: the hub revision, where one was pinned.
        weights_sha256: hash of the teacher's weights.
        pooling: ``mean``, ``cls``, ``lasttoken``, ...
        normalized: whether vectors have unit L2 norm.
        query_prompt, document_prompt: what is put before a text.
        dim: the width of a vector.
    """

    teacher: str
    revision: str | None
    weights_sha256: str
    pooling: str
    normalized: bool
    query_prompt: str
    document_prompt: str
    dim: int

    @property
    def id(self) -> str:
        """A short name that two equal spaces share: ``all-mpnet-base-v2/768/5f0c2a9b41d7``."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        return f"{self.teacher.rsplit('/', 1)[-1]}/{self.dim}/{digest[:12]}"

    def identity(self) -> dict[str, Any]:
        """What makes the space: everything but the name under which the teacher happened to be found."""
        return {key: value for key, value in asdict(self).items() if key not in {"teacher", "revision"}}


@dataclass(frozen=True)
class Manifest:
    """``edgeleaf.json``: what this bundle is and which files belong to it.

    Args:
        space: the vector space of its outputs.
        recipe: the recipe's name, or the model's for a plain export.
        description: what it is, in a sentence.
        teacher_max_length: window of the teacher in tokens, which cut the documents off.
        student: how the student was made: start model, hash of its own weights, texts, objective, seed.
        tokenizer: type, vocabulary size, maximum length, hash of tokenizer.json.
        quantization: preset and what it did.
        gates: what the certificate is judged by.
        held_out: where the texts of ``held_out.jsonl``, which it was certified on, come from, and how many they are.
        processors: what was found on each kind of processor that it was certified on, see
            ``edgeleaf.bundle.machine.processor_kind``: the machine that made the certificate, and those it
            compared with.
        dims: output widths that were asked for; the first is the file's own.
        files: sha256 of each file, by its path in the bundle.
    """

    space: VectorSpace
    recipe: str
    description: str
    teacher_max_length: int
    student: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    quantization: Mapping[str, Any]
    gates: Mapping[str, Any]
    held_out: Mapping[str, Any]
    dims: tuple[int, ...]
    files: Mapping[str, str]
    edgeleaf_version: str
    processors: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write ``edgeleaf.json`` into ``folder``."""
        write_json(folder / MANIFEST, asdict(self))

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read ``edgeleaf.json`` of a bundle.

        Raises:
            BundleError: no such folder, not a bundle, not readable, or another schema version.
        """
        path = folder / MANIFEST
        if folder.is_file():
            raise BundleError(f"{folder} is a file; a bundle folder is needed, one that holds {MANIFEST}")
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such bundle folder; make one with: edgeleaf run RECIPE -o {folder}")
        if not path.is_file():
            raise BundleError(
                f"{folder} is not a bundle: it has no {MANIFEST}; give the folder that edgeleaf run wrote"
            )
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BundleError(f"{path}: damaged manifest ({error}); build or copy the bundle again") from None
        if not isinstance(data, dict) or "schema_version" not in data:
            raise BundleError(f"{path}: damaged manifest (it names no schema_version); build or copy the bundle again")
        version = data["schema_version"]
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path}: schema version {version}, this edgeleaf reads {SCHEMA_VERSION}; "
                f"install the edgeleaf that wrote it ({data.get('edgeleaf_version', 'unknown')}) or build it again"
            )
        try:
            space = VectorSpace(**data.pop("space"))
            manifest = Manifest(space=space, dims=tuple(data.pop("dims")), **data)
        except (KeyError, TypeError) as error:
            raise BundleError(f"{path}: damaged manifest ({error}); build or copy the bundle again") from None
        for name in ("student", "tokenizer", "quantization", "gates", "held_out", "processors", "files"):
            if not isinstance(getattr(manifest, name), dict):
                raise BundleError(f"{path}: damaged manifest ({name} is no table); build or copy the bundle again")
        return manifest

    def verify(self, folder: Path, *names: str) -> None:
        """Check that ``names`` (all files when none is given) have the hashes of the manifest.

        Raises:
            BundleError: files that are missing, or whose hashes differ; the message names each.
        """
        problems = []
        for name in names or sorted(self.files.keys() - _UNHASHED):
            path = folder / name
            if name not in self.files:
                problems.append(f"{folder / MANIFEST}: lists no {name}")
            elif not path.is_file():
                problems.append(f"{path}: missing, though {MANIFEST} lists it")
            elif (found := sha256(path)) != self.files[name]:
                problems.append(f"{path}: damaged: sha256 {found[:12]}…, {MANIFEST} says {self.files[name][:12]}…")
        if problems:
            raise BundleError(f"{'; '.join(problems)}; build or copy the bundle again")


def says_failed(bundle: Path) -> bool:
    """Whether a bundle's certificate says FAILED; not where it has none, or one that cannot be read."""
    try:
        return bool(json.loads((bundle / CERTIFICATE).read_text(encoding="utf-8"))["passed"] is False)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a bundle, by its path, apart from manifest, timings and model card."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: sha256(path) for name, path in names.items() if name not in _UNHASHED}
