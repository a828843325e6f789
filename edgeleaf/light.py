"""A bundle to give away: the fused file, its certificate, and the student in half precision; a third of the size.

What is left out, the graphs without a tokenizer, is made again by ``edgeleaf export BUNDLE/student``. The student loads
in float32 as before: its weights are rounded once, and that is measured. A bundle also holds texts: those it was
certified on, some of them in the golden pack and in the certificate. They may be nobody else's business, so the copy is
certified anew on others.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf import bundle as layout
from edgeleaf import checks, models, progress, steps
from edgeleaf.bundle import Manifest
from edgeleaf.card import model_card
from edgeleaf.certify.alignment import cosine_rows
from edgeleaf.certify.ladder import student_vectors
from edgeleaf.errors import BundleError, GateFailed
from edgeleaf.golden import write_golden
from edgeleaf.recipe import TEXTS_DECIDE
from edgeleaf.shipping import processor_facts

LEFT_OUT = "onnx"
TEXTS = 200
CLOSE = 0.99999
"""Cosine of each of these held-out texts' vectors to that of the student in float32, at least."""


def lighten(
    bundle: Path,
    output: Path,
    *,
    texts: Sequence[str | Path] = (),
    processors: Sequence[str] = (),
    keep_texts: bool = False,
) -> Manifest:
    """Copy a bundle without its unfused graphs, with its student's weights in float16, certified on other texts.

    Args:
        bundle: a bundle folder; it stays as it is. Its teacher must be within reach, unless ``keep_texts``.
        output: folder of the copy; replaced when it is a bundle.
        texts: files of queries that may be given away, one a line; documentation found on this machine where it is
            empty. Documents are such documentation in any case.
        processors: others to compare this one with, by their names in ``edgeleaf.emulation``.
        keep_texts: leave the bundle's own texts, and its certificate, in the copy.

    Raises:
        BundleError: the bundle is damaged; or its student does not survive the rounding, and nothing is written.
        GateFailed: what does not depend on the choice of texts is below a gate; nothing is written.
    """
    from safetensors.numpy import load_file, save_file

    manifest = Manifest.read(bundle)
    manifest.verify(bundle)
    queries = [text.text for text in steps.read(bundle, "held_out")][:TEXTS]
    with layout.whole_folder(output) as new:
        shutil.copytree(bundle, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LEFT_OUT))
        for path in sorted((new / layout.STUDENT).rglob("*.safetensors")):
            save_file({name: _half(tensor) for name, tensor in load_file(path).items()}, path, {"format": "pt"})
            path.chmod(0o644)
        before, after = (
            student_vectors(folder / layout.STUDENT, queries, prompt="", threads=2)[0] for folder in (bundle, new)
        )
        lowest = float(cosine_rows(before, after).min())
        if not lowest >= CLOSE:
            raise BundleError(f"{bundle}: its student in float16 has cosine {lowest:.6f} to itself; {CLOSE} is needed")
        progress.say(f"student in float16: cosine to itself at least {lowest:.7f}, {len(queries)} texts")
        weights = models.weights_sha256(new / layout.STUDENT)
        student = {**manifest.student, "weights_sha256": weights, "stored": "float16"}
        manifest = replace(manifest, student=student, files=layout.hash_files(new))
        manifest.write(new)
        if not keep_texts:
            manifest = _certify_anew(new, manifest, texts, processors)
    return manifest


def _certify_anew(bundle: Path, manifest: Manifest, files: Sequence[str | Path], processors: Sequence[str]) -> Manifest:
    """Put other held-out texts, golden pack, certificate and card in the place of a bundle's."""
    teacher = steps.teacher_of(manifest)
    with tempfile.TemporaryDirectory() as scratch:
        texts, vectors, cache = (Path(scratch) / name for name in ("texts", "vectors", "cache"))
        checks.check_texts(texts, files)
        steps.vectors(vectors, texts, teacher, cache, names=("held_out",))
        shutil.copyfile(texts / layout.HELD_OUT, bundle / layout.HELD_OUT)
        held_out = steps.read(bundle, "held_out")
        queries = [text.text for text in held_out if text.kind == "query"]
        window, prompt = int(manifest.tokenizer["max_length"]), manifest.space.query_prompt
        write_golden(bundle, queries, max_length=window, prompt=prompt)
        origin = checks.origin(files)
        gates = replace(checks.gates_of(manifest), **dict.fromkeys(TEXTS_DECIDE, None))
        certificate = checks.certify_bundle(
            bundle, texts, vectors, manifest.space, gates, origin, processors=processors
        )
    if not certificate.passed:
        raise GateFailed(f"not copied: {'; '.join(certificate.failures)}")
    checks.write_certificate(certificate, bundle)
    manifest = replace(
        manifest,
        held_out={"origin": origin, "texts": len(held_out)},
        processors={**manifest.processors, **processor_facts(certificate)},
    )
    layout.write_text(bundle / layout.MODEL_CARD, model_card(manifest, certificate))
    manifest = replace(manifest, files=layout.hash_files(bundle))
    manifest.write(bundle)
    return manifest


def _half(tensor: Any) -> Any:
    return tensor.astype(np.float16) if tensor.dtype == np.float32 else tensor
