"""A bundle to give away: the fused file, its certificate, and the student in half precision; a third of the size.

What is left out, the graphs without a tokenizer, is made again by ``edgeleaf export BUNDLE/student``. The student loads
in float32 as before: its weights are rounded once, and that is measured.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf import bundle as layout
from edgeleaf import models, progress, steps
from edgeleaf.bundle import Manifest
from edgeleaf.certify.alignment import cosine_rows
from edgeleaf.certify.ladder import student_vectors
from edgeleaf.errors import BundleError

LEFT_OUT = "onnx"
TEXTS = 200
CLOSE = 0.99999
"""Cosine of each of these held-out texts' vectors to that of the student in float32, at least."""


def lighten(bundle: Path, output: Path) -> Manifest:
    """Copy a bundle without its unfused graphs, and with its student's weights in float16.

    Args:
        bundle: a bundle folder; it stays as it is.
        output: folder of the copy; replaced when it is a bundle.

    Raises:
        BundleError: the bundle is damaged; or its student does not survive the rounding, and nothing is written.
    """
    from safetensors.numpy import load_file, save_file

    manifest = Manifest.read(bundle)
    manifest.verify(bundle)
    texts = [text.text for text in steps.read(bundle, "held_out")][:TEXTS]
    with layout.whole_folder(output) as new:
        shutil.copytree(bundle, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LEFT_OUT))
        for path in sorted((new / layout.STUDENT).rglob("*.safetensors")):
            save_file({name: _half(tensor) for name, tensor in load_file(path).items()}, path, {"format": "pt"})
            path.chmod(0o644)
        before, after = (
            student_vectors(folder / layout.STUDENT, texts, prompt="", threads=2)[0] for folder in (bundle, new)
        )
        lowest = float(cosine_rows(before, after).min())
        if not lowest >= CLOSE:
            raise BundleError(f"{bundle}: its student in float16 has cosine {lowest:.6f} to itself; {CLOSE} is needed")
        progress.say(f"student in float16: cosine to itself at least {lowest:.7f}, {len(texts)} texts")
        weights = models.weights_sha256(new / layout.STUDENT)
        manifest = replace(
            manifest,
            student={**manifest.student, "weights_sha256": weights, "stored": "float16"},
            files=layout.hash_files(new),
        )
        manifest.write(new)
    return manifest


def _half(tensor: Any) -> Any:
    return tensor.astype(np.float16) if tensor.dtype == np.float32 else tensor
