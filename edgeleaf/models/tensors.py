"""Checks weight files before they are loaded: pointers of git-lfs, incomplete files, tensors beyond a file's end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgeleaf.errors import ModelError
from edgeleaf.models.weights import weight_files
from edgeleaf.records import RecordError, parse_json, shown

_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
_MOST_HEADER = 100_000_000
_LFS = b"version https://git-lfs"


def check_tensors(folder: Path) -> None:
    """Check that the weight files of a model are complete and not pointers of git-lfs.

    Raises:
        ModelError: one line that names the file and its fault.
    """
    for path in weight_files(folder):
        try:
            with path.open("rb") as stream:
                start = stream.read(len(_LFS))
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
        if start == _LFS:
            raise ModelError(f"{path}: a pointer of git-lfs, not the weights; fetch them: git lfs pull")
        if path.suffix == ".safetensors":
            try:
                _check_safetensors(path)
            except OSError as error:
                raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
            except RecordError as error:
                raise ModelError(f"{path}: damaged weights ({error}); fetch or copy the file again") from None


def _check_safetensors(path: Path) -> None:
    """Read the header, and compare its entry of every tensor with the file's size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER):
            raise RecordError(f"{size:,} bytes, without a valid safetensors header")
        header = parse_json(stream.read(length).rstrip(b" "))
    if not isinstance(header, dict):
        raise RecordError("invalid safetensors header")
    spans = sorted(_span(name, tensor) for name, tensor in header.items() if name != "__metadata__")
    end = 0
    for low, high in spans:
        if low != end:
            raise RecordError("tensors overlap, or leave holes")
        end = high
    if end != size - 8 - length:
        raise RecordError(f"{size:,} bytes, its header gives {8 + length + end:,}")


def _span(name: str, tensor: Any) -> tuple[int, int]:
    """Return the start and end of a tensor's numbers, counted from the header's end; check them against its shape."""
    try:
        kind, shape, (low, high) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        numbers = math.prod(shape)
        whole = all(type(part) is int and part >= 0 for part in (*shape, low, high))
        if not whole or low > high or (high - low) * 8 != numbers * _BITS[kind]:
            raise RecordError(f"tensor {shown(name)}: {shown(kind)} whose size does not fit its shape")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"tensor {shown(name)} is not described") from None
    return low, high
