"""Makes a bundle a wheel, so that a package index carries it: ``pip install``, then ``QueryEncoder.load(name)``.

The wheel holds data only: no module, no script, no requirement. It holds what encodes and what proves it: the fused
file, manifest, golden pack, certificate, timings and card. The student, which is for further training, stays behind.
Layout: the PyPA's specification "Binary distribution format". The same bundle gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.bundle.named import GROUP, NAME, normal
from edgeleaf.errors import BundleError, InputError
from edgeleaf.files import write_bytes
from edgeleaf.pipeline.given import part_of, passed_bundle
from edgeleaf.pipeline.ship import ship
from edgeleaf.records import shown
from edgeleaf.version import __version__

FIRST_VERSION = "1.0"
_LEFT_OUT = (layout.STUDENT, "onnx")
_VERSION = re.compile(
    r"(?:[1-9]\d*!)?(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))*(?:(?:a|b|rc)(?:0|[1-9]\d*))?"
    r"(?:\.post(?:0|[1-9]\d*))?(?:\.dev(?:0|[1-9]\d*))?(?:\+[a-z0-9]+(?:\.[a-z0-9]+)*)?",
    re.ASCII,
)
"""A version in its canonical form; PEP 440, appendix B."""
_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip archive can name."""


def ship_wheel(
    bundle: str | Path,
    *,
    output: str | Path,
    name: str | None = None,
    version: str = FIRST_VERSION,
    texts: Sequence[str | Path] = (),
    processors: Sequence[str] = (),
    keep_texts: bool = False,
    takes: str | None = None,
) -> Path:
    """Write a bundle as a wheel, ``edgeleaf_NAME-VERSION-py3-none-any.whl``, and return its path.

    Args:
        bundle: a bundle folder, which is not changed.
        output: folder that the wheel is written into.
        name: what ``QueryEncoder.load`` will know it by; None takes the bundle folder's name. The package is called
            ``edgeleaf-NAME``.
        version: the wheel's version; raise it whenever the bundle changes.
        texts, processors, keep_texts, takes: as for :func:`edgeleaf.ship`, which makes the copy that is packed. With
            ``keep_texts`` and the same input nothing has to be made, and no package is needed.

    Raises:
        BundleError: the bundle is damaged, or ``output`` is a file or has a wheel of this name and version; where
            nothing has to be made, one with the same contents stays.
        GateFailed: the bundle failed one of its gates; nothing is written.
        InputError: a name or a version that packages cannot have, or what :func:`edgeleaf.ship` refuses.
    """
    folder = Path(bundle)
    called = folder.resolve().name if name is None else name
    if not NAME.fullmatch(called):
        raise InputError(f"the name is {shown(called)}; letters, digits, '-', '_' and '.' are needed: --name NAME")
    if not _VERSION.fullmatch(version):
        raise InputError(f"the version is {shown(version)}; one such as 1.0, 1.2.3 or 2.0rc1 is needed (PEP 440)")
    wheel = _place(Path(output), normal(called), version)
    if wheel.parent.exists() and not wheel.parent.is_dir():
        raise BundleError(f"{output} is not a folder; give the folder that the wheel is written into")
    as_it_is = keep_texts and not texts and not processors and takes in (None, Manifest.read(folder).input)
    if as_it_is:
        return _pack(folder, wheel, normal(called), version)
    if wheel.exists():  # before hours of certification
        raise BundleError(f"{wheel} exists; a version stands for one bundle: give a new --version, or remove the wheel")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        ship(folder, output=copy, texts=texts, processors=processors, keep_texts=keep_texts, takes=takes)
        return _pack(copy, wheel, normal(called), version)


def _place(output: Path, name: str, version: str) -> Path:
    return output / f"{_package(name)}-{version}-py3-none-any.whl"


def _package(name: str) -> str:
    return f"edgeleaf_{name.replace('-', '_')}"


def _pack(bundle: Path, wheel: Path, name: str, version: str) -> Path:
    manifest, _ = passed_bundle(bundle)
    files = part_of(bundle, manifest, kept=lambda path: path.partition("/")[0] not in _LEFT_OUT)
    package = _package(name)
    info = f"{package}-{version}.dist-info"
    card = files.get(layout.MODEL_CARD)
    text = card.read_text(encoding="utf-8") if isinstance(card, Path) else ""
    members = {
        f"{package}/{path}": part if isinstance(part, bytes) else part.read_bytes() for path, part in files.items()
    }
    members |= {
        f"{info}/METADATA": _metadata(manifest, name, version, text).encode(),
        f"{info}/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: edgeleaf {__version__}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ).encode(),
        f"{info}/entry_points.txt": f"[{GROUP}]\n{name} = {package}\n".encode(),
    }
    members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD")
    _write(wheel, members)
    return wheel


def _metadata(manifest: Manifest, name: str, version: str, card: str) -> str:
    space = manifest.space
    summary = " ".join((manifest.description or f"A query encoder for {space.teacher}").split())[:200]
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    # A hostile card cannot add a header: it begins after the first blank line, and the summary is one line.
    return (
        f"Metadata-Version: 2.1\nName: edgeleaf-{name}\nVersion: {version}\nSummary: {summary}\n"
        f"Keywords: edgeleaf,embeddings,query-encoder\nDescription-Content-Type: text/markdown\n\n{body}"
    )


def _record(members: Mapping[str, bytes], own: str) -> bytes:
    """Return the list of files with their hashes, by which pip checks what it has installed."""
    lines = []
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        quoted = f'"{name}"' if "," in name else name
        lines.append(f"{quoted},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{own},,\n"]).encode()


def _write(wheel: Path, members: Mapping[str, bytes]) -> None:
    """Write the archive, completely or not at all."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    made = stream.getvalue()
    if wheel.exists() and wheel.read_bytes() != made:
        raise BundleError(f"{wheel} exists, with other contents; a version stands for one bundle: give a new --version")
    write_bytes(wheel, made)
