"""Rebuild a shipped bundle's tokenizer graph and student folder with today's code, and certify the copy again.

python export/refresh.py BUNDLE -o COPY [--processors all]

The copy is certified on the bundle's own held-out texts. The encoder inside the file does not change, and vectors must
not change either: if a held-out or golden text gets a different vector, that is an error, and nothing is written. The
teacher must be available. The committed reference student is renewed in this way.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.processors import check_names
from edgeleaf.cli.options import processor_names
from edgeleaf.errors import EdgeleafError
from edgeleaf.files import whole_folder
from edgeleaf.models.portable import make_portable
from edgeleaf.models.weights import weights_sha256
from edgeleaf.pipeline.places import check_apart_from, open_bundle, output_folder
from edgeleaf.pipeline.ship import certify_anew, change_input, check_same_vectors
from edgeleaf.texts.corpus import read_corpus


def refresh(bundle: Path, output: Path, processors: Sequence[str]) -> Manifest:
    """Write a renewed copy of a bundle; if anything fails, nothing is written.

    Raises:
        BundleError: a vector has changed.
        GateFailed: the copy fails one of the bundle's gates.
    """
    manifest = open_bundle(bundle)
    texts = [text.text for text in read_corpus(bundle, "held_out")] + [entry["text"] for entry in read_golden(bundle)]
    with whole_folder(output) as new:
        shutil.copytree(bundle, new, dirs_exist_ok=True)
        make_portable(new / layout.STUDENT, max_length=int(manifest.fact("tokenizer", "max_length")))
        student = {**manifest.student, "weights_sha256": weights_sha256(new / layout.STUDENT)}
        manifest = change_input(new, replace(manifest, student=student), manifest.input)
        check_same_vectors(bundle, new, texts)
        manifest = replace(manifest, files=layout.hash_files(new))
        manifest.write(new)
        return certify_anew(new, manifest, (), processors, own_texts=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--processors", default="", help="names from edgeleaf.emulation, separated by commas, or all")
    options = parser.parse_args()
    names = processor_names(options.processors)
    try:
        check_names(names)
        check_apart_from(options.bundle, options.output)
        refresh(options.bundle, output_folder(options.output), names)
    except EdgeleafError as error:
        sys.stderr.write(f"edgeleaf: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
