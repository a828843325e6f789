"""The contents of a bundle: layout, manifest, hashes of its files, and the identity of its vector space."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeleaf.bundle.feed import TEXT, Input
from edgeleaf.bundle.space import VectorSpace
from edgeleaf.errors import BundleError
from edgeleaf.files import sha256, write_json
from edgeleaf.records import RecordError, checked, inside, number, read_json, record, shown

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

MOST_MANIFEST_BYTES = 4 << 20
MOST_CERTIFICATE_BYTES = 256 << 20
MOST_WINDOW = 1 << 20
_PROBLEMS = 8
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FACTS: tuple[tuple[str, str, Any], ...] = (
    ("student", "weights_sha256", str),
    ("student", "start", str),
    ("student", "start_revision", str | None),
    ("tokenizer", "max_length", int),
    ("tokenizer", "sha256", str),
    ("quantization", "preset", str),
    ("held_out", "origin", str),
    ("held_out", "texts", int),
)
"""The keys of a manifest's tables that other parts of edgeleaf read, if they are there."""
_UNHASHED = frozenset({MANIFEST, LATENCY, MODEL_CARD})
"""The manifest cannot hold its own hash, timings differ between runs, and users may add to a model card."""


@dataclass(frozen=True)
class Manifest:
    """``edgeleaf.json``: describes a bundle and the files that belong to it.

    Args:
        space: the vector space of its outputs.
        recipe: the recipe's name, or the model's for a plain export.
        description: one sentence about it.
        teacher_max_length: window of the teacher in tokens, at which documents were cut.
        student: how the student was made: start model, hash of its own weights, texts, objective, seed.
        tokenizer: type, vocabulary size, maximum length, hash of tokenizer.json.
        quantization: preset and its results.
        gates: the limits by which the certificate is judged.
        held_out: source and number of the texts in ``held_out.jsonl``, on which it was certified.
        processors: the results on each kind of processor that it was certified on, see
            ``edgeleaf.bundle.machine.processor_kind``: the machine that made the certificate, and those that it was
            compared with.
        input: what the fused file takes: ``text`` (strings) or ``utf8`` (bytes).
        dims: the requested output widths; the first is the file's own.
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
    processors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    input: Input = TEXT
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write ``edgeleaf.json`` into ``folder``."""
        write_json(folder / MANIFEST, self.record())

    def record(self) -> dict[str, Any]:
        """Return the manifest as JSON has it."""
        return {**asdict(self), "space": self.space.record()}

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read ``edgeleaf.json`` of a bundle and check the type of every value.

        Raises:
            BundleError: no such folder, not a bundle, not readable, a value of the wrong kind, a path that leads out of
                the folder, or another schema version.
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
            data = read_json(inside(folder, MANIFEST), most_bytes=MOST_MANIFEST_BYTES)
            if not isinstance(data, dict) or "schema_version" not in data:
                raise RecordError("it names no schema_version")
            version = data["schema_version"]
            if version != SCHEMA_VERSION or isinstance(version, bool):
                raise BundleError(
                    f"{path}: schema version {shown(version)}, this edgeleaf reads {SCHEMA_VERSION}; install the "
                    f"edgeleaf that wrote it ({shown(data.get('edgeleaf_version', 'unknown'))}) or build it again"
                )
            manifest = record(Manifest, data)
            _check_values(manifest, folder)
            return manifest
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from None
        except RecordError as error:
            raise BundleError(f"{path}: damaged manifest ({error}); build or copy the bundle again") from None

    def fact(self, table: str, key: str) -> Any:
        """Return a value from a table of the manifest, such as ``fact("tokenizer", "max_length")``.

        Raises:
            BundleError: it is missing.
        """
        try:
            return getattr(self, table)[key]
        except KeyError:
            raise BundleError(f"{MANIFEST}: {table}.{key} is missing; build or copy the bundle again") from None

    def verify(self, folder: Path, *names: str) -> None:
        """Check that ``names`` (all files if none is given) have the hashes in the manifest.

        Raises:
            BundleError: files that are missing or links, or whose hashes differ; the message names each.
        """
        problems = []
        for name in names or sorted(self.files.keys() - _UNHASHED):
            try:
                path = inside(folder, name)
                if name not in self.files:
                    problems.append(f"{folder / MANIFEST}: lists no {name}")
                elif not path.is_file():
                    problems.append(f"{path}: missing, though {MANIFEST} lists it")
                elif (found := sha256(path)) != self.files[name]:
                    problems.append(f"{path}: damaged: sha256 {found[:12]}…, {MANIFEST} has {self.files[name][:12]}…")
            except (RecordError, OSError) as error:
                problems.append(f"{folder}: {error}")
        if problems:
            told = "; ".join(problems[:_PROBLEMS])
            more = f"; and {len(problems) - _PROBLEMS} more" if len(problems) > _PROBLEMS else ""
            raise BundleError(f"{told}{more}; build or copy the bundle again")


def _check_values(manifest: Manifest, folder: Path) -> None:
    """Raise RecordError if a value has the right type but makes no sense."""
    manifest.space.check(where="space")
    width = manifest.space.dim
    if not manifest.dims:
        raise RecordError("dims is an empty list; the file's width is needed")
    for i, dims in enumerate(manifest.dims):
        number(dims, f"dims[{i}]", low=1, high=width)
    number(manifest.teacher_max_length, "teacher_max_length", low=1, high=MOST_WINDOW)
    for table, key, kind in _FACTS:
        if key in getattr(manifest, table):
            checked(kind, getattr(manifest, table)[key], f"{table}.{key}")
    if "max_length" in manifest.tokenizer:
        number(manifest.tokenizer["max_length"], "tokenizer.max_length", low=1, high=MOST_WINDOW)
    for name, digest in manifest.files.items():
        inside(folder, name)
        if not _SHA256.fullmatch(digest):
            raise RecordError(f"files.{shown(name)} is {shown(digest)}; a sha256 of 64 hexadecimal digits is needed")


def says_failed(bundle: Path) -> bool:
    """Return whether a bundle's certificate failed; False if it has none, or one that cannot be read."""
    try:
        certificate = read_json(bundle / CERTIFICATE, most_bytes=MOST_CERTIFICATE_BYTES)
        return isinstance(certificate, dict) and certificate.get("passed") is False
    except (OSError, ValueError):
        return False


def hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a bundle by its path, except manifest, timings and model card."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: sha256(path) for name, path in names.items() if name not in _UNHASHED}


__all__ = [
    "CERTIFICATE",
    "CERTIFICATE_PAGE",
    "GOLDEN",
    "HELD_OUT",
    "LATENCY",
    "MANIFEST",
    "MODEL_CARD",
    "ONNX_FP32",
    "QUERY_ENCODER",
    "SCHEMA_VERSION",
    "STUDENT",
    "Manifest",
    "VectorSpace",
    "hash_files",
    "says_failed",
]
