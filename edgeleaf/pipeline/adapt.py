"""Distils a bundle's student further, on the text of the index that it will search."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import TextsError
from edgeleaf.extras import require
from edgeleaf.pipeline.finish import Result
from edgeleaf.pipeline.places import check_apart_from, open_bundle
from edgeleaf.pipeline.run import build
from edgeleaf.recipe.presets import TEXTS_DECIDE
from edgeleaf.recipe.sources import KINDS, FilesSource, Kind
from edgeleaf.recipe.specs import BenchmarkSpec, ObjectiveSpec, QuantizationSpec, Recipe, StudentSpec, TextsSpec
from edgeleaf.stages.checked import gates_of
from edgeleaf.teachers.opening import teacher_spec
from edgeleaf.texts.pieces import pieces_of
from edgeleaf.texts.readers import file_texts

TEXTS, TOKENS = 24_000, 360_000
"""Limits of training texts and tokens: a quarter of an hour on two cores, bundle included (docs/log/training.md)."""
HELD_OUT_QUERIES, HELD_OUT_DOCUMENTS = 200, 400
"""Greatest number of texts that judge the result; a tenth of a small corpus, but at least the minimum."""
LEAST_HELD_OUT, LEAST_TEXTS = 20, 100
MAX_CHARS = 160
"""Longest training text in characters: the student reads queries, not passages."""
OBJECTIVE = ObjectiveSpec(epochs=2.0, batch_size=32, learning_rate=3e-4, checkpoint_steps=500)
BENCHMARK = BenchmarkSpec(threads=(1,), lengths=(8, 16, 32), repeats=30)
"""The graph is the one that was measured before, with different numbers in it."""


def drawn(texts: Iterable[str], most: int) -> tuple[int, list[str]]:
    """Count texts and draw an even sample (Vitter's algorithm R); the same texts give the same sample."""
    dice, count = random.Random(0), 0
    sample: list[str] = []
    for count, text in enumerate(texts, 1):
        if len(sample) < most:
            sample.append(text)
        elif (place := dice.randrange(count)) < most:
            sample[place] = text
    return count, sample


def adaptation(manifest: Manifest, bundle: Path, documents: Path, queries: Path | None) -> Recipe:
    """Return the recipe of an adaptation.

    It is judged by the bundle's own gates on the cost of quantisation; whether it is close enough to the teacher is for
    the user to decide.

    Args:
        manifest: the bundle's manifest.
        bundle: absolute path of its folder.
        documents: absolute path of a corpus.
        queries: absolute path of real queries, or None.

    Raises:
        TextsError: a file cannot be read, or there is too little text.
    """
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    corpus = (str(documents),)
    sources = [
        FilesSource(corpus, "query", pieces="windows", weight=3.0),
        FilesSource(corpus, "document", pieces="sentences"),
    ]
    if queries is not None:
        sources.append(FilesSource((str(queries),), "query", weight=2.0))
    window = int(manifest.fact("tokenizer", "max_length"))
    tokenizer = reference_tokenizer((bundle / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8"), window)
    counts: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    tokens = 0.0
    for source in sources:
        texts = (piece for text in file_texts(source, Path()) for piece in pieces_of(text, source.pieces, MAX_CHARS))
        count, sample = drawn(texts, 10 * HELD_OUT_DOCUMENTS)
        counts[source.kind] += count
        lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(sample)]
        tokens += source.weight * sum(lengths) / max(len(lengths), 1)
    mean_tokens = tokens / sum(source.weight for source in sources)
    names: dict[Kind, str] = {"document": "sentences", "query": "runs of words"}
    for kind, name in names.items():
        if counts[kind] < LEAST_TEXTS:
            raise TextsError(f"{documents}: {counts[kind]} {name}; adapting needs at least {LEAST_TEXTS}: add text")
    held_out = {kind: max(LEAST_HELD_OUT, count // 10) for kind, count in counts.items()}
    return Recipe(
        name=f"{manifest.recipe}-adapted",
        description=f"{manifest.recipe}, adapted to {documents.name}.",
        teacher=teacher_spec(manifest, training_vectors="int8"),
        student=StudentSpec(model=str(bundle / layout.STUDENT), max_length=window),
        texts=TextsSpec(
            sources=tuple(sources),
            limit=min(TEXTS, int(TOKENS / mean_tokens)),
            held_out_queries=min(HELD_OUT_QUERIES, held_out["query"]),
            held_out_documents=min(HELD_OUT_DOCUMENTS, held_out["document"]),
            max_chars=MAX_CHARS,
        ),
        objective=OBJECTIVE,
        benchmark=BENCHMARK,
        quantization=QuantizationSpec(manifest.fact("quantization", "preset")),
        gates=replace(gates_of(manifest), **dict.fromkeys(TEXTS_DECIDE, False)),
    )


def adapt(
    bundle: str | Path,
    *,
    documents: str | Path,
    queries: str | Path | None = None,
    output: str | Path,
    force: bool = False,
) -> Result:
    """Improve a bundle's student on the user's own text with some minutes of LEAF, from the present student; no labels.

    Args:
        bundle: a bundle folder, which is not changed; its teacher must be available.
        documents: BEIR's corpus.jsonl, or .txt with one document per line, gzipped or not. The student learns titles,
            sentences and runs of words from anywhere in them.
        queries: a file of real queries, one per line (.txt, .tsv or .jsonl), if there is one.
        output: folder of the new bundle, of the same vector space.
        force: run every stage again.

    Raises:
        GateFailed, EdgeleafError: like :func:`run`.
    """
    folder = Path(bundle)
    manifest = open_bundle(folder)
    check_apart_from(folder, output)
    require("adapt")
    asked = None if queries is None else Path(queries).resolve()
    spec = adaptation(manifest, folder.resolve(), Path(documents).resolve(), asked)
    return build(spec, Path(), output, force=force, base_bundle=manifest)
