"""Turns the student into a graph: exports it, quantises it, fuses it with its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.files import write_bytes, write_json
from edgeleaf.recipe.presets import PRESETS, quantized_onnx
from edgeleaf.texts.corpus import read_corpus

QUANTIZATION = "quantization.json"
CALIBRATION_TEXTS = 6000
"""Training texts that the quantiser sees."""
LADDER_LENGTHS = (1, 5, 20, 60, 200)
"""Lengths in words of the texts on which the exported graph is compared with torch."""
LADDER_TEXTS = 1000
"""Number of held-out texts from which these words come."""


def export_graph(folder: Path, student: Path, texts: Path, exporter: str) -> None:
    """Export the student to ``onnx/model.onnx`` and validate it against torch on real texts of several lengths."""
    from edgeleaf.graph.builder import serialize
    from edgeleaf.graph.export import export_onnx, validate
    from edgeleaf.models.loading import load_sentence_transformer

    progress.say(f"export: torch to ONNX, by {exporter}")
    model = export_onnx(student / layout.STUDENT, exporter=exporter)
    words = " ".join(text.text for text in read_corpus(texts, "held_out")[:LADDER_TEXTS]).split()
    samples = [" ".join(words[:count]) for count in LADDER_LENGTHS]
    worst = validate(model, load_sentence_transformer(student / layout.STUDENT), samples)
    progress.say(f"export: names, axes, shapes and values hold; largest difference to torch {worst:.1e}")
    write_bytes(folder / layout.ONNX_FP32, serialize(model))


def check_form(model: Any, preset: str) -> None:
    """Check, before the long work, whether a preset has a form of everything in a float32 graph.

    Raises:
        ExportError: it has not; the message names the parts, and the presets that do.
    """
    from edgeleaf.graph.quantization.quantize import planned

    if PRESETS[preset].bits in (4, 8) and not PRESETS[preset].weights_only:
        planned(model)


def exported_graph(graph: Path) -> Any:
    """Read the graph that :func:`export_graph` wrote."""
    import onnx

    return onnx.load(graph / layout.ONNX_FP32)


def quantize_graph(
    folder: Path, graph: Path, texts: Path, student: Path, space: VectorSpace, max_length: int, preset: str
) -> None:
    """Quantise ``onnx/model.onnx`` by a preset, and record what was done in ``quantization.json``."""
    import onnx

    from edgeleaf.graph.builder import serialize
    from edgeleaf.graph.quantization.half import to_half
    from edgeleaf.graph.quantization.quantize import quantize
    from edgeleaf.graph.quantization.weights import quantize_weights
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    facts: dict[str, Any] = {"preset": preset}
    found = PRESETS[preset]
    if found.file is None:
        write_json(folder / QUANTIZATION, facts)
        return
    if found.bits == 16:
        write_bytes(folder / found.file, serialize(to_half(onnx.load(graph / layout.ONNX_FP32))))
        write_json(folder / QUANTIZATION, facts)
        return
    settings = (student / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8")
    prompts = {"query": space.query_prompt, "document": space.document_prompt}
    calibration = [prompts[text.kind] + text.text for text in read_corpus(texts, "train")[:CALIBRATION_TEXTS]]
    encodings = reference_tokenizer(settings, max_length).encode_batch(calibration)
    ids = [encoding.ids for encoding in encodings]
    exported = onnx.load(graph / layout.ONNX_FP32)
    facts |= {"weights": found.weights, "calibration_texts": len(calibration)}
    if found.weights_only:
        weights = quantize_weights(exported, ids, bits=found.bits)
        model, layers, tables = weights.model, weights.layers, weights.tables
        facts |= {"activations": "float32", "layers": layers}
    else:
        result = quantize(exported, ids, bits=found.bits)
        model, layers, tables = result.model, result.fixed + result.running, result.tables
        facts |= {
            "activations": "uint8, scales fixed on texts where numbers are bounded, one scale per token elsewhere",
            "fixed": result.fixed,
            "running": result.running,
        }
    data = serialize(model)
    write_bytes(folder / found.file, data)
    write_json(folder / QUANTIZATION, facts | {"embedding_tables": tables})
    progress.say(f"quantise: {layers} layers and {tables} tables, {len(data) / 1e6:.1f} MB")


def fuse_graph(folder: Path, graph: Path, quantized: Path, student: Path, space: VectorSpace, max_length: int) -> None:
    """Fuse tokenizer and prompt into the quantised graph, or else the exported one: ``query_encoder.onnx``."""
    import onnx

    from edgeleaf.bundle.session import METADATA_SCHEMA, METADATA_SPACE, METADATA_WINDOW
    from edgeleaf.graph.builder import serialize
    from edgeleaf.graph.fuse import fuse

    progress.say("fuse: tokenizer into the graph")
    model = fuse(
        onnx.load(quantized_onnx(quantized) or graph / layout.ONNX_FP32),
        (student / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8"),
        max_length=max_length,
        prompt=space.query_prompt,
        metadata={
            METADATA_SPACE: json.dumps(space.record(), sort_keys=True),
            METADATA_SCHEMA: str(layout.SCHEMA_VERSION),
            METADATA_WINDOW: str(max_length),
        },
    )
    write_bytes(folder / layout.QUERY_ENCODER, serialize(model))
