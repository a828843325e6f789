"""What may be handed on: a whole bundle that passed its gates, or the part of it that others need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.certificate import Certificate
from edgeleaf.errors import BundleError, GateFailed
from edgeleaf.files import json_text
from edgeleaf.records import inside


def passed_bundle(bundle: Path) -> tuple[Manifest, Certificate]:
    """Read a bundle and its certificate; check every hash, and that every gate was passed.

    Raises:
        BundleError: it is damaged, has no certificate, or one of another file.
        GateFailed: a gate failed; the message names each.
    """
    manifest = Manifest.read(bundle)
    manifest.verify(bundle)
    if layout.CERTIFICATE not in manifest.files:
        raise BundleError(f"{bundle} has no certificate that its {layout.MANIFEST} lists; build or copy it again")
    certificate = Certificate.read(bundle / layout.CERTIFICATE)
    if certificate.file_sha256 != manifest.files.get(layout.QUERY_ENCODER):
        raise BundleError(f"{bundle}: its certificate is of another {layout.QUERY_ENCODER}; build or copy it again")
    if not certificate.passed:
        raise GateFailed(f"{bundle} is not handed on: {'; '.join(certificate.failures)}")
    return manifest, certificate


def part_of(bundle: Path, manifest: Manifest, *, kept: Callable[[str], bool]) -> dict[str, Path | bytes]:
    """Return some of a bundle's files, with a manifest that lists only these.

    Args:
        bundle: a bundle whose hashes were checked.
        manifest: its manifest.
        kept: whether a file belongs to the part, by its path in the bundle.

    Returns:
        Each file by its path in the bundle: where it is, or its content. Timings and model card come along if they are
        there; they have no hash, since timings differ and users may add to a card.
    """
    files = {name: digest for name, digest in manifest.files.items() if kept(name)}
    part: dict[str, Path | bytes] = {name: inside(bundle, name) for name in sorted(files)}
    for name in (layout.LATENCY, layout.MODEL_CARD):
        if (path := inside(bundle, name)).is_file():
            part[name] = path
    part[layout.MANIFEST] = json_text(replace(manifest, files=files).record()).encode()
    return part
