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
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.golden import verify
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.processors import check_names
from edgeleaf.cli.options import processor_names
from edgeleaf.errors import BundleError, EdgeleafError, GateFailed
from edgeleaf.files import whole_folder, write_bytes, write_text
from edgeleaf.graph.builder import serialize
from edgeleaf.graph.fuse import with_input
from edgeleaf.models.portable import make_portable
from edgeleaf.models.weights import weights_sha256
from edgeleaf.pipeline.places import check_apart_from, open_bundle, output_folder
from edgeleaf.pipeline.ship import check_same_vectors
from edgeleaf.stages.card import model_card
from edgeleaf.stages.checked import certify_bundle, gates_of, processor_facts, write_certificate
from edgeleaf.stages.golden import write_golden
from edgeleaf.stages.vectors import write_vectors
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.texts.corpus import read_corpus


def refresh(bundle: Path, output: Path, processors: Sequence[str]) -> Manifest:
    """Write a renewed copy of a bundle; if anything fails, nothing is written.

    Raises:
        BundleError: a vector has changed.
        GateFailed: the copy fails one of the bundle's gates.
    """
    manifest = open_bundle(bundle)
    window, prompt = int(manifest.fact("tokenizer", "max_length")), manifest.space.query_prompt
    held_out = read_corpus(bundle, "held_out")
    queries = [text.text for text in held_out if text.kind == "query"]
    with whole_folder(output) as new, tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(bundle, new, dirs_exist_ok=True)
        make_portable(new / layout.STUDENT, max_length=window)
        old = onnx.load(bundle / layout.QUERY_ENCODER)
        made = with_input(
            old,
            (new / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8"),
            max_length=window,
            prompt=prompt,
            takes=manifest.input,
        )
        write_bytes(new / layout.QUERY_ENCODER, serialize(made))
        check_same_vectors(bundle, new, [text.text for text in held_out])
        if not verify(bundle)["passed"]:
            raise BundleError(f"{bundle}: its golden pack does not hold on this machine")
        student = {**manifest.student, "weights_sha256": weights_sha256(new / layout.STUDENT)}
        manifest = replace(manifest, student=student, files=layout.hash_files(new))
        manifest.write(new)
        write_golden(new, queries, max_length=window, prompt=prompt)
        manifest = replace(manifest, files=layout.hash_files(new))
        manifest.write(new)
        origin = str(manifest.held_out["origin"])
        vectors = Path(scratch) / "vectors"
        write_vectors(vectors, new, teacher_of(manifest), Path(scratch) / "cache", names=("held_out",))
        certificate = certify_bundle(
            new, new, vectors, manifest.space, gates_of(manifest), origin, processors=processors
        )
        if not certificate.passed:
            raise GateFailed(f"not renewed: {'; '.join(certificate.failures)}")
        write_certificate(certificate, new)
        facts = processor_facts(certificate) if processors else {**manifest.processors, **processor_facts(certificate)}
        manifest = replace(manifest, processors=facts)
        write_text(new / layout.MODEL_CARD, model_card(manifest, certificate))
        manifest = replace(manifest, files=layout.hash_files(new))
        manifest.write(new)
    return manifest


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
