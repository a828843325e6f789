"""Shows whether a LEAF student inherits what its teacher bears: shorter vectors, int8, single bits.

    python -m bench.studies.inheritance DATA -o DIR [--steps 150] [--texts 6000]

DATA is a folder with ``ir/`` and ``texts/``, as for :mod:`bench.studies.teach`. all-MiniLM-L6-v2 is taught on the same
pairs twice: by InfoNCE, and by InfoNCE with Matryoshka weights. Each of these two teachers then gets a student of three
of MiniLM's layers, by LEAF's plain L2, which knows nothing of shorter vectors. Queries of the six collections, cut down
in the same way for all, are ranked among each teacher's documents at every width and precision. The table shows which
share of their own nDCG@10 at full width the teacher and its student keep.

What each teacher and its student keep is in a file of its own in DIR, so a stopped study continues with the next.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.studies.short_collections import shortened as cut_down
from bench.studies.teach import COLLECTIONS, START, WINDOW
from bench.tables import markdown_table
from edgeleaf import progress
from edgeleaf.certify.shortened import BY_FIRST, Shortened, shortened
from edgeleaf.files import write_json, write_text
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.models.resolve import resolve
from edgeleaf.recipe.sources import FilesSource
from edgeleaf.recipe.specs import ObjectiveSpec
from edgeleaf.recipe.teach import MatryoshkaSpec, PairsMade, PairSource, StageSpec
from edgeleaf.records import read_json
from edgeleaf.texts.collection import Collection, read_collection
from edgeleaf.texts.pieces import pieces_of
from edgeleaf.texts.readers import file_texts
from edgeleaf.texts.taught import collect_pairs
from edgeleaf.training.contrastive.loss import Signals
from edgeleaf.training.contrastive.trainer import teach_stage
from edgeleaf.training.student import build_student, start_projection
from edgeleaf.training.trainer import Examples, train

LAYERS, HELD_OUT, MAX_CHARS = [0, 2, 5], 500, 300
PAIRS = (("openstax-textbooks.txt.gz", "titles"), ("gap-wikipedia.txt.gz", "sentences"))
TEACHERS: dict[str, dict[str, Any]] = {
    "InfoNCE": {},
    "with Matryoshka": {"matryoshka": MatryoshkaSpec((384, 256, 128, 64))},
}
OBJECTIVE = ObjectiveSpec(epochs=2.0, batch_size=32, learning_rate=5e-4, checkpoint_steps=10**6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=150, help="of 32 pairs, of each teacher")
    parser.add_argument("--texts", type=int, default=6000, help="that each student learns from, twice")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    progress.show()
    collections = [cut_down(read_collection(given.data / "ir" / name), name) for name in COLLECTIONS]
    texts = sentences(given.data / "texts", given.texts + HELD_OUT)
    results = {}
    for name, techniques in TEACHERS.items():
        path = given.output / f"{name}, {given.steps} steps, {given.texts} texts.json"
        if not path.is_file():
            progress.say(f"teacher: {name}")
            write_json(path, pair_of_models(given.data, given.steps, techniques, texts, collections))
        results[name] = read_json(path)
    text = table(results)
    write_text(given.output / "inheritance.md", text)
    sys.stdout.write(text)


def sentences(folder: Path, count: int) -> list[str]:
    """Return sentences of the pairs' files, by chance."""
    source = FilesSource(tuple(str(folder / name) for name, _ in PAIRS), "document")
    found = {part for text in file_texts(source, folder) for part in pieces_of(text, "sentences", MAX_CHARS)}
    return [str(text) for text in np.random.default_rng(0).choice(sorted(found), count, replace=False)]


def pair_of_models(
    data: Path, steps: int, techniques: dict[str, Any], texts: Sequence[str], collections: Sequence[Collection]
) -> dict[str, Any]:
    """Teach a teacher, align a student to it, and return what both keep: by collection, one row a setting."""
    sources: list[PairSource] = [
        PairsMade((str(data / "texts" / name),), made, limit=steps * OBJECTIVE.batch_size // 2, task=made)
        for name, made in PAIRS
    ]
    pairs, _ = collect_pairs(sources, base=data, seed=0, held_out=0)
    stage = StageSpec(
        pairs=tuple(sources),
        steps=steps,
        batch_size=OBJECTIVE.batch_size,
        learning_rate=5e-5,
        negatives=0,
        checkpoint_steps=10**9,
        **techniques,
    )
    teacher = load_sentence_transformer(resolve(START), max_length=WINDOW)
    with tempfile.TemporaryDirectory() as scratch:
        teach_stage(teacher, pairs, None, stage, Signals(None, None), seed=0, checkpoints=Path(scratch) / "teacher")
        vectors = encoded(teacher.eval(), texts)
        student = build_student(
            resolve(START), dim=vectors.shape[1], max_length=WINDOW, pooling=("mean", "cls"), layers=LAYERS
        )
        learnt = Examples(list(texts[HELD_OUT:]), vectors[HELD_OUT:])
        start_projection(student, learnt.texts[:4096], learnt.vectors[:4096], ridge=1.0)
        judges = Examples(list(texts[:HELD_OUT]), vectors[:HELD_OUT])
        curve = train(student, learnt, judges, objective=OBJECTIVE, seed=0, checkpoints=Path(scratch) / "student")
    kept = {
        part.name: [
            asdict(row)
            for row in shortened(
                encoded(teacher, part.queries),
                encoded(student, part.queries),
                encoded(teacher, part.documents),
                collection=part,
            )
        ]
        for part in collections
    }
    return {"held_out_cosine": curve[-1]["held_out_cosine"], "collections": kept}


def encoded(model: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return np.asarray(model.encode(list(texts), prompt="", show_progress_bar=False), dtype=np.float32)


def table(results: dict[str, Any]) -> str:
    """Return Markdown: for every setting, the share of its own nDCG@10 at full width that each model keeps."""
    parts = [
        [[Shortened(**row) for row in rows if row["kept"] == BY_FIRST] for rows in result["collections"].values()]
        for result in results.values()
    ]
    sides = [(part, field) for part in parts for field in ("teacher_ndcg_at_10", "fused_ndcg_at_10")]
    whole = [np.mean([getattr(rows[0], field) for rows in part]) for part, field in sides]
    lines = [["384", "nDCG@10", *(f"{value:.4f}" for value in whole)]]
    for at, setting in enumerate(parts[0][0]):
        shares = [
            np.mean([getattr(rows[at], field) / getattr(rows[0], field) for rows in part]) for part, field in sides
        ]
        lines.append([str(setting.dim), setting.precision, *(f"{share:.1%}" for share in shares)])
    head = ["width", "numbers", *(f"{who}, {name}" for name in results for who in ("teacher", "its student"))]
    cosines = ", ".join(f"{name} {result['held_out_cosine']:.4f}" for name, result in results.items())
    return f"{markdown_table(head, lines)}\nHeld-out cosine of the students: {cosines}.\n"


if __name__ == "__main__":
    main()
