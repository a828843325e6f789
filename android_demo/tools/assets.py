"""Writes the app's assets: the encoder, the index as one zip with its hash, the certificate.

    python android_demo/tools/assets.py out/android/bundle out/android/index android_demo/app/src/main/assets

Both builds take them from that folder. The bundle must be one that takes bytes: ``edgeleaf ship BUNDLE --input utf8``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path

INDEX_FILES = ("index.json", "vectors.npy", "documents.jsonl", "pca.npy")
OPTIONAL = {"pca.npy"}
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The date of each entry, so that the same index gives the same zip."""


def write_zip(index: Path, target: Path) -> None:
    """Pack an index as ``IndexStore.install`` takes it: its files, without a folder."""
    with zipfile.ZipFile(target, "w") as archive:
        for name in INDEX_FILES:
            if name in OPTIONAL and not (index / name).exists():
                continue
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
    for needed in (given.bundle / "edgeleaf.json", given.index / "index.json"):
        if not needed.is_file():
            sys.exit(f"assets: {needed}: no such file")
    takes = json.loads((given.bundle / "edgeleaf.json").read_text(encoding="utf-8")).get("input")
    if takes != "utf8":
        sys.exit(f"assets: {given.bundle} does not take bytes; make a copy with: edgeleaf ship BUNDLE --input utf8")
    given.output.mkdir(parents=True, exist_ok=True)
    for name in ("query_encoder.onnx", "certificate.json"):
        shutil.copyfile(given.bundle / name, given.output / name)
    packed = given.output / "index.zip"
    write_zip(given.index, packed)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    (given.output / "index.zip.sha256").write_text(digest + "\n", encoding="ascii")
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in sorted(given.output.iterdir()))
    sys.stderr.write(f"{given.output}: {sizes}\n")


if __name__ == "__main__":
    main()
