"""Prints the APK's size by processor, with and without documents and encoder, as a table in Markdown.

    python android_demo/tools/sizes.py

Each APK is made and measured, without a signature (some 10 kB). Download: all of it deflated, as a store sends it.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import apk

DOCUMENTS = ("assets/index.zip", "assets/index.zip.sha256")
ENCODER = ("assets/query_encoder.onnx", "assets/certificate.json")


def measured(dex: Path, abis: list[str], folder: Path) -> tuple[int, int, int, int]:
    """Return bytes: of the APK, without documents, without encoder too, and of its download."""
    sizes, download = [], 0
    for without in ((), DOCUMENTS, DOCUMENTS + ENCODER):
        target = folder / "measured.apk"
        with zipfile.ZipFile(target, "w") as archive:
            for name, data in apk.entries(dex, abis):
                if name in without:
                    continue
                apk.add(archive, name, data)
                if not without:
                    download += len(zlib.compress(data, 6))
        sizes.append(target.stat().st_size)
    return sizes[0], sizes[1], sizes[2], download


def main() -> None:
    """Print the table."""
    dex = apk.needed(apk.TARGET / "apk" / "dex.zip")
    print("| processor | APK, MB | without documents | without encoder and documents | download of the whole |")
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, abis in [*((abi, [abi]) for abi in apk.ABIS), ("all four", list(apk.ABIS))]:
            cells = " | ".join(f"{size / 1e6:.1f}" for size in measured(dex, abis, Path(folder)))
            print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
