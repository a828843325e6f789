"""The quantisation presets, one row each: bits, files and gates. To add a preset, add a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgeleaf.errors import RecipeError
from edgeleaf.recipe.specs import Gates, shown


@dataclass(frozen=True)
class Preset:
    """How a graph is quantised, and what that may cost.

    Args:
        bits: bits per weight; 8 and 4 are quantised (:mod:`edgeleaf.graph.quantization`), 16 is float16, 32 float32.
        file: path of the unfused graph in a bundle; None: only ``onnx/model.onnx``, in float32.
        weights: the manifest's entry about the weights; None if nothing is quantised.
        gates: limits of a recipe that sets none. File sizes are for a student of 23M parameters.
        export_gates: limits for a model that is exported unchanged, compared with the model itself, whatever its size.
            Its ranking is compared with its own, where any rounding moves a few documents, so that loss has no gate.
        weights_only: whether the encoder computes in float32, and only weights are quantised
            (:mod:`edgeleaf.graph.quantization.weights`).
    """

    bits: int
    file: str | None
    weights: str | None
    gates: Gates
    export_gates: Gates
    weights_only: bool = False


_ANY_SIZE = Gates(quantization_overlap_loss=False, file_mb=False)
_FOUR_BITS = replace(_ANY_SIZE, cosine_mean=0.97, cosine_p01=0.94, overlap_at_10=0.70, quantization_loss=0.03)

PRESETS: Mapping[str, Preset] = {
    "int8": Preset(
        bits=8,
        file="onnx/model_qint8.onnx",
        weights="int8, a scale a column of a matrix and a row of a table; errors compensated",
        gates=Gates(
            quantization_cosine_mean=0.998,
            quantization_cosine_min=0.995,
            quantization_loss=0.0015,
            quantization_overlap_loss=0.01,
            quantization_ndcg_loss=0.005,
            batch_invariance_cosine_min=0.999999,
            padding_invariance_cosine_min=0.999999,
            processor_cosine_min=0.9999,
            token_mismatches=0,
            file_mb=24.0,
        ),
        export_gates=replace(_ANY_SIZE, cosine_mean=0.99, cosine_p01=0.98, overlap_at_10=0.85),
    ),
    "int4": Preset(
        bits=4,
        file="onnx/model_q4.onnx",
        weights="4 bits, a scale 16 rows of a matrix and 32 columns of a table; errors compensated; unpacked to int8",
        gates=Gates(
            quantization_loss=0.01,
            quantization_overlap_loss=0.02,
            quantization_ndcg_loss=0.015,
            batch_invariance_cosine_min=0.999999,
            padding_invariance_cosine_min=0.999999,
            processor_cosine_min=0.9999,
            token_mismatches=0,
            file_mb=14.5,
        ),
        export_gates=_FOUR_BITS,
    ),
    "int8-weights": Preset(
        bits=8,
        file="onnx/model_w8.onnx",
        weights="8 bits, a scale a column of a matrix and a row of a table; errors compensated; unpacked to float32",
        gates=Gates(
            quantization_cosine_mean=0.9995,
            quantization_cosine_min=0.998,
            quantization_loss=0.0005,
            quantization_overlap_loss=0.005,
            quantization_ndcg_loss=0.002,
            batch_invariance_cosine_min=0.99999,
            padding_invariance_cosine_min=0.99999,
            processor_cosine_min=0.9999,
            token_mismatches=0,
            file_mb=24.0,
        ),
        export_gates=replace(_ANY_SIZE, cosine_mean=0.999, cosine_p01=0.998, overlap_at_10=0.95),
        weights_only=True,
    ),
    "int4-weights": Preset(
        bits=4,
        file="onnx/model_w4.onnx",
        weights="4 bits, a scale 32 rows of a matrix and 32 columns of a table; errors compensated",
        gates=Gates(
            quantization_loss=0.01,
            quantization_overlap_loss=0.02,
            quantization_ndcg_loss=0.015,
            batch_invariance_cosine_min=0.99999,
            padding_invariance_cosine_min=0.99999,
            processor_cosine_min=0.9999,
            token_mismatches=0,
            file_mb=15.5,
        ),
        export_gates=_FOUR_BITS,
        weights_only=True,
    ),
    "fp16": Preset(
        bits=16,
        file="onnx/model_fp16.onnx",
        weights=None,
        gates=Gates(
            quantization_cosine_mean=0.9999,
            quantization_cosine_min=0.999,
            quantization_loss=0.0005,
            quantization_overlap_loss=0.005,
            quantization_ndcg_loss=0.002,
            batch_invariance_cosine_min=0.9999,
            padding_invariance_cosine_min=0.9999,
            token_mismatches=0,
        ),
        export_gates=replace(_ANY_SIZE, cosine_mean=0.999, overlap_at_10=0.97),
    ),
    "fp32": Preset(
        bits=32,
        file=None,
        weights=None,
        gates=Gates(
            quantization_cosine_mean=0.99999,
            quantization_cosine_min=0.9999,
            quantization_loss=0.0001,
            quantization_overlap_loss=0.002,
            quantization_ndcg_loss=0.001,
            batch_invariance_cosine_min=0.99999,
            padding_invariance_cosine_min=0.99999,
            processor_cosine_min=0.9999,
            token_mismatches=0,
        ),
        export_gates=replace(_ANY_SIZE, cosine_mean=0.9999, overlap_at_10=0.99),
    ),
}

TEXTS_DECIDE = ("cosine_mean", "cosine_p01", "overlap_at_10", "quantization_overlap_loss")
"""Gates whose value depends on which texts are held out, and on their number; they do not apply to other texts."""


def quantized_onnx(folder: Path) -> Path | None:
    """Return the path of a bundle's quantised, unfused encoder; None if its preset leaves it in float32."""
    places = (folder / preset.file for preset in PRESETS.values() if preset.file)
    return next((place for place in places if place.is_file()), None)


def gates_for(preset: str, gates: Gates) -> Gates:
    """Return ``gates`` with every ``None`` filled from the table of the preset; ``False`` stays and means no limit.

    Raises:
        RecipeError: no such preset.

    Example:
        >>> gates_for("int8", Gates(file_mb=30.0)).file_mb
        30.0
    """
    return _filled(find_preset(preset).gates, gates)


def export_gates(preset: str) -> Gates:
    """Return the gates of a model that is exported unchanged.

    Raises:
        RecipeError: no such preset.
    """
    found = find_preset(preset)
    return _filled(found.gates, found.export_gates)


def find_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        RecipeError: there is no such preset; the message lists the existing ones.
    """
    if name not in PRESETS:
        raise RecipeError(f"quantization preset is {shown(name)}; allowed: {', '.join(map(shown, PRESETS))}")
    return PRESETS[name]


def _filled(defaults: Gates, gates: Gates) -> Gates:
    given = {name: limit for name, limit in vars(gates).items() if limit is not None}
    return dataclasses.replace(defaults, **given)
