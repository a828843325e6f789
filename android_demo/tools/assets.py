"""Writes the app's assets: the encoder, the index as one zip with its hash, the certificate.

    python android_demo/tools/assets.py out/android/bundle out/android/index android_demo/app/src/main/assets

Both builds take them from that folder. The bundle must be one that takes bytes: ``edgeleaf ship BUNDLE --input utf8``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import zipfile
from pathlib import Path

from edgeleaf.bundle.feed import UTF8
from edgeleaf.bundle.manifest import CERTIFICATE, QUERY_ENCODER, Manifest
from edgeleaf.errors import EdgeleafError
from edgeleaf.files import sha256
from edgeleaf.search import Index
from edgeleaf.search.header import DOCUMENTS, HEADER, PCA_FILE, VECTORS

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The date of each entry, so that the same index gives the same zip."""


def write_zip(index: Path, target: Path) -> None:
    """Pack an index as ``IndexStore.install`` takes it: its files, without a folder."""
    with zipfile.ZipFile(target, "w") as archive:
        for name in filter(lambda name: (index / name).exists(), (HEADER, VECTORS, DOCUMENTS, PCA_FILE)):
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (index / name).read_bytes())


def main() -> None:
    """Write the assets and say how large they are."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("bundle", type=Path)
    asked.add_argument("index", type=Path)
    asked.add_argument("output", type=Path, help="the app's folder of assets")
    given = asked.parse_args()
    try:
        takes = Manifest.read(given.bundle).input
        Index.load(given.index)
    except EdgeleafError as error:
        sys.exit(f"assets: {error}")
    if takes != UTF8:
        sys.exit(f"assets: {given.bundle} does not take bytes; make a copy with: edgeleaf ship BUNDLE --input utf8")
    given.output.mkdir(parents=True, exist_ok=True)
    for name in (QUERY_ENCODER, CERTIFICATE):
        shutil.copyfile(given.bundle / name, given.output / name)
    packed = given.output / "index.zip"
    write_zip(given.index, packed)
    (given.output / "index.zip.sha256").write_text(sha256(packed) + "\n", encoding="ascii")
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in sorted(given.output.iterdir()))
    sys.stderr.write(f"{given.output}: {sizes}\n")


if __name__ == "__main__":
    main()
