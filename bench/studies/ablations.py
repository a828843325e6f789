"""Shows what each choice of a distillation is worth: small runs with equally many tokens that differ in one thing.

    python -m bench.studies.ablations WORK COLLECTION [COLLECTION ...] -o DIR [--texts 60000] [--arm NAME ...]
        [--start NAME=FOLDER ...] [--forms FOLDER] [--short]

WORK is the ``.work`` folder of a run of a recipe; the arms (:mod:`bench.studies.arms`) learn from its texts and teacher
vectors. Some start from encoders that :mod:`bench.studies.starts` makes; some also learn from texts that
:mod:`bench.studies.forms` makes, whose vectors come from the run's int8 teacher. Writes ablations.json after every arm
(arms that are in it are not run again), ablations.md, and ablations.png, on which every arm is a point: cosine to the
teacher on the collections' queries against the share of its nDCG@10 that is kept. Between unit vectors the squared
distance is 2 - 2 cosine, so the base is also the arm of the cosine. Two arms that differ only in their seed show the
size of chance. All arms learn little compared with a whole run, in small batches: what wins here may not win there. At
the end, the int8 encoders of the base and of smaller students are measured in size and, taking turns, in time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.studies.arms import ARMS, BASE, OFF_THE_HUB, START, TEACHER, WINDOW, Arm, Averages, untrained
from bench.studies.quantization import LENGTHS, latencies, session
from bench.studies.short_collections import shortened
from bench.tables import markdown_table
from edgeleaf import progress
from edgeleaf.certify.inputs import EncodedCollection, encode_collection
from edgeleaf.certify.retrieval import ndcg_at_10
from edgeleaf.errors import TrainingError
from edgeleaf.files import sha256, write_json, write_text
from edgeleaf.graph.export import export_onnx
from edgeleaf.graph.quantization.quantize import quantize
from edgeleaf.graph.tokenizers.spec import reference_tokenizer
from edgeleaf.models.resolve import resolve
from edgeleaf.recipe.sources import KINDS, FilesSource, Pieces
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.teachers.cache import teacher_vectors
from edgeleaf.teachers.opening import load_teacher
from edgeleaf.teachers.quantized import QuantizedTeacher
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher
from edgeleaf.texts.collection import read_collections
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.texts.pieces import pieces_of
from edgeleaf.texts.readers import file_texts
from edgeleaf.texts.text import Text
from edgeleaf.training.student import save_student, start_projection
from edgeleaf.training.trainer import Examples, HeldOutEvaluator, train
from edgeleaf.vectors import cosine_rows, nearest

HELD_OUT, MAX_CHARS = 1000, 300
"""As in export/recipes/mpnet.toml."""
CALIBRATION = 300
"""Number of texts for quantising an encoder that is measured."""
FORM_SHARE = 0.25
"""The share of the tokens of an arm with a form that are of this form."""
CROWD = 0.02
"""Arms within this distance of the best cosine are drawn a second time, larger."""
PIECES: tuple[Pieces, ...] = ("whole", "sentences", "spans", "windows")
"""The forms that definitions may have among the training texts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=60_000, help="training texts of an arm")
    parser.add_argument("--arm", action="append", help="one of the arms, may be repeated; default: all")
    parser.add_argument("--start", action="append", default=[], help="NAME=FOLDER of an encoder that arms start from")
    parser.add_argument(
        "--short", action="store_true", help="judge on a part of each collection, as studies.teach does"
    )
    parser.add_argument("--definitions", type=Path, help="file of words' definitions, for the arm without them")
    parser.add_argument(
        "--forms", type=Path, help="folder of texts in several forms, for the arms with a quarter of one"
    )
    given = parser.parse_args()
    starts = {name: Path(folder) for name, _, folder in (part.partition("=") for part in given.start)}
    reachable = [name for name, arm in ARMS.items() if arm.start not in OFF_THE_HUB - set(starts)]
    arms = given.arm or [name for name in reachable if given.forms is not None or ARMS[name].form is None]
    if unknown := [name for name in arms if name not in ARMS]:
        raise SystemExit(f"no such arm: {', '.join(unknown)}; there are: {', '.join(ARMS)}")
    if given.definitions is None and not all(ARMS[name].definitions for name in arms):
        raise SystemExit("the arm 'no definitions' needs --definitions FILE")
    if given.forms is None and any(ARMS[name].form is not None for name in arms):
        raise SystemExit("arms with a form need --forms FOLDER; python -m bench.studies.forms makes the folder")
    if out_of_reach := [ARMS[name].start for name in arms if name not in reachable]:
        raise SystemExit(
            f"--start {out_of_reach[0]}=FOLDER is missing; python -m bench.studies.starts makes the folder"
        )
    progress.show()
    spec = TeacherSpec(TEACHER, max_length=WINDOW)
    teacher = load_teacher(spec)
    cache = given.output / "vectors"
    read = read_collections(given.collections)
    if given.short:
        read = [shortened(part, part.name) for part in read]
    found = [encode_collection(part, teacher, cache) for part in read]
    corpus = Corpus.read(given.work, resolve(START))
    assert isinstance(teacher, SentenceTransformerTeacher)
    wanted = dict.fromkeys(form for name in arms if (form := ARMS[name].form) is not None)
    forms: dict[str, Examples] = {}
    if wanted:
        quantized = QuantizedTeacher(teacher, spec, given.work / "quantized-teacher")
        tokens = int(FORM_SHARE * corpus.tokens[: given.texts].sum())
        forms = {form: in_form(given.forms / f"{form}.txt", tokens, quantized, cache) for form in wanted}
        del quantized
    del teacher
    path = given.output / "ablations.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made_of = {
        "texts": given.texts,
        "work": sha256(given.work / "texts" / "train.jsonl")[:16],
        "definitions": None if given.definitions is None else sha256(given.definitions)[:16],
        "collections": [part.collection.name for part in found],
        "short": given.short,
    }
    if any(result["made_of"] != made_of for result in results.values()):
        raise SystemExit(f"{path} has arms of other texts or collections; give another folder")
    for name in arms:
        if name not in results:
            progress.say(f"arm: {name}")
            try:
                result = run(ARMS[name], corpus, found, given.texts, given.definitions, starts, forms)
            except TrainingError as error:  # an arm may fail
                result = {"failed": str(error)}
            results[name] = {"made_of": made_of, **result}
            write_json(path, results)
    smaller = [name for name in results if name == "base" or ARMS[name].layers in range(6)]
    results = with_averages(results)
    text = "\n".join([table(results), margin(results), weighed(smaller, corpus, starts)])
    write_text(given.output / "ablations.md", text)
    plot(results, given.output / "ablations.png")
    sys.stdout.write(text)


def tokenizer_of(start: Path) -> Any:
    return reference_tokenizer((start / "tokenizer.json").read_text(encoding="utf-8"), WINDOW)


@dataclass(frozen=True)
class Corpus:
    """Texts of a run, the number of the student's tokens in each, and the teacher's vectors."""

    texts: list[Text]
    tokens: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]
    held_out: Examples

    @staticmethod
    def read(work: Path, start: Path) -> Corpus:
        texts = read_corpus(work / "texts", "train")
        tokenizer = tokenizer_of(start)
        tokens = np.array([len(encoding.ids) for encoding in tokenizer.encode_batch([text.text for text in texts])])
        held_out = read_corpus(work / "texts", "held_out")
        queries = [row for row, text in enumerate(held_out) if text.kind == "query"][:HELD_OUT]
        judged = np.load(work / "vectors" / "held_out.npy", mmap_mode="r")
        return Corpus(
            texts,
            tokens,
            np.load(work / "vectors" / "train.npy", mmap_mode="r"),
            Examples([held_out[row].text for row in queries], np.asarray(judged[queries])),
        )

    def examples(self, kinds: Sequence[str], most: int, *, without: Collection[str] = frozenset()) -> Examples:
        """Return texts of some kinds, with as many tokens as the first ``most`` texts of all kinds have.

        Texts in ``without`` are replaced by the next texts of their kind, so that the mix of kinds stays the same.

        Raises:
            SystemExit: there are too few texts of these kinds.
        """
        budget = dict.fromkeys(KINDS, 0)
        for text, tokens in zip(self.texts[:most], self.tokens[:most].tolist(), strict=True):
            budget[text.kind] += tokens
        if set(kinds) != set(KINDS):
            budget = {kind: sum(budget.values()) * (kind in kinds) for kind in KINDS}
        rows: list[int] = []
        for row, (text, tokens) in enumerate(zip(self.texts, self.tokens.tolist(), strict=True)):
            if budget[text.kind] > 0 and text.text not in without:
                rows.append(row)
                budget[text.kind] -= tokens
        if max(budget.values()) > 0:
            raise SystemExit(f"the run has too few texts of kind {' and '.join(kinds)}; lower --texts")
        return Examples([self.texts[row].text for row in rows], np.asarray(self.vectors[rows]))


def mixed(ordinary: Examples, form: Examples, tokenizer: Any) -> Examples:
    """Return ordinary texts, of which those with the last quarter of all tokens are replaced by texts of a form.

    Raises:
        SystemExit: there are too few texts of the form.
    """
    tokens = np.cumsum([len(encoding.ids) for encoding in tokenizer.encode_batch(list(ordinary.texts))])
    others = np.cumsum([len(encoding.ids) for encoding in tokenizer.encode_batch(list(form.texts))])
    kept = int(np.searchsorted(tokens, (1 - FORM_SHARE) * tokens[-1], side="right"))
    missing = tokens[-1] - tokens[kept - 1]
    if others[-1] < missing:
        raise SystemExit("too few texts of a form; make more of them, or lower --texts")
    added = int(np.searchsorted(others, missing, side="right"))
    texts = [*ordinary.texts[:kept], *form.texts[:added]]
    vectors = np.concatenate([ordinary.vectors[:kept], form.vectors[:added]])
    order = np.random.default_rng(0).permutation(len(texts))
    return Examples([texts[row] for row in order], vectors[order])


def in_form(file: Path, tokens: int, teacher: QuantizedTeacher, cache: Path) -> Examples:
    """Return the first texts of a file, one a line, that have so many tokens, with vectors of a run's int8 teacher."""
    texts = file.read_text(encoding="utf-8").splitlines()
    counts = [len(encoding.ids) for encoding in tokenizer_of(resolve(START)).encode_batch(texts)]
    texts = texts[: int(np.searchsorted(np.cumsum(counts), 1.1 * tokens)) + 1]
    vectors = teacher_vectors([Text(text, "query") for text in texts], teacher, cache / teacher.precision)
    return Examples(texts, vectors)


def run(
    arm: Arm,
    corpus: Corpus,
    collections: Sequence[EncodedCollection],
    budget: int,
    definitions: Path | None,
    starts: Mapping[str, Path],
    forms: Mapping[str, Examples],
) -> dict[str, Any]:
    """Train one arm and evaluate it."""
    without: set[str] = set()
    if not arm.definitions:
        assert definitions is not None
        source = FilesSource((str(definitions.resolve()),), "document")
        for text in file_texts(source, Path()):
            for pieces in PIECES:
                without.update(piece.strip() for piece in pieces_of(text, pieces, MAX_CHARS))
    train_set = corpus.examples(arm.kinds, round(budget * arm.share), without=without)
    if arm.form is not None:
        train_set = mixed(train_set, forms[arm.form], tokenizer_of(resolve(START)))
    model = untrained(arm, train_set.vectors.shape[1], starts)
    if arm.ridge is not None:
        start_projection(model, train_set.texts[:4096], train_set.vectors[:4096], ridge=arm.ridge)
    objective = replace(BASE, **arm.objective)
    steps = round(objective.epochs * -(-len(train_set.texts) // objective.batch_size))
    averages = Averages(model, steps) if arm.averages else None
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, averages or nullcontext():
        curve = train(
            model,
            train_set,
            corpus.held_out,
            objective=objective,
            seed=arm.seed,
            checkpoints=Path(scratch),
        )
    seconds = time.monotonic() - began
    counts = {"texts": len(train_set.texts), "steps": curve[-1]["step"], "seconds": round(seconds)}
    result = counts | judged(model, corpus, collections)
    if averages is not None:
        result["averages"] = {}
        for name, state in averages.states().items():
            model.load_state_dict(model.state_dict() | state)
            result["averages"][name] = counts | judged(model, corpus, collections)
    return result


def judged(model: Any, corpus: Corpus, collections: Sequence[EncodedCollection]) -> dict[str, Any]:
    """Return how close a student is on held-out queries and on collections, and what retrieval it keeps there."""
    result: dict[str, Any] = {
        "held_out_cosine": HeldOutEvaluator(corpus.held_out).measure(model)["held_out_cosine"],
        "collections": {},
    }
    for part in collections:
        vectors = model.encode(list(part.collection.queries), batch_size=32, show_progress_bar=False)
        ours, theirs = (
            ndcg_at_10(
                part.collection,
                nearest(rows, part.teacher_documents.astype(np.float32), 10, skip=part.collection.itself),
            )
            for rows in (vectors, part.teacher_queries.astype(np.float32))
        )
        result["collections"][part.collection.name] = {
            "cosine": round(float(cosine_rows(vectors, part.teacher_queries).mean()), 4),
            "ndcg_at_10": ours,
            "of_the_teacher": round(ours / theirs, 4),
        }
    return result


def with_averages(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results with each average of a run's weights as an arm of its own."""
    found: dict[str, Any] = {}
    for name, result in results.items():
        found[name] = result
        found.update({f"{name}: {average}": part for average, part in result.get("averages", {}).items()})
    return found


def weighed(names: Sequence[str], corpus: Corpus, starts: Mapping[str, Path]) -> str:
    """Return Markdown: size and median times, one thread, from token ids, of these arms' int8 encoders.

    Neither depends on what a student has learnt, so untrained ones are enough.
    """
    texts = corpus.held_out.texts[:CALIBRATION]
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{number}.onnx" for number, name in enumerate(names)}
        for name, file in files.items():
            model = untrained(ARMS[name], corpus.vectors.shape[1], starts)
            save_student(model, file.with_suffix(""))
            tokenizer = reference_tokenizer(model.tokenizer.backend_tokenizer.to_str(), WINDOW)
            ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
            file.write_bytes(quantize(export_onnx(file.with_suffix("")), ids).model.SerializeToString())
        times = latencies({name: session(file) for name, file in files.items()})
        rows = [
            [name, f"{file.stat().st_size / 1e6:.1f}", *(f"{times[length][name]:.2f}" for length in LENGTHS)]
            for name, file in files.items()
        ]
    return markdown_table(["int8 encoder", "MB", *(f"ms, {length} tokens" for length in LENGTHS)], rows) + "\n"


def table(results: dict[str, Any]) -> str:
    """Return Markdown with one line per arm."""
    columns = [
        "arm",
        "texts",
        "steps",
        "s",
        "cosine, held out",
        "cosine, collections",
        "of the teacher's nDCG@10: mean",
    ]
    rows = []
    for name, result in results.items():
        if "failed" in result:
            rows.append([name, *[""] * 6, result["failed"]])
            continue
        cosine, shares = points(result)
        counts = (f"{result['texts']:,}", f"{result['steps']:,.0f}", str(result["seconds"]))
        figures = (f"{result['held_out_cosine']:.4f}", f"{cosine:.4f}", f"{np.mean(shares):.1%}", f"{min(shares):.1%}")
        rows.append([name, *counts, *figures])
    return markdown_table([*columns, "lowest"], rows) + "\n"


def margin(results: dict[str, Any]) -> str:
    """Return a line on how nDCG@10 depends on the cosine, over all arms and over those close to the best."""
    found = [points(result) for result in results.values() if "failed" not in result]
    cosines, kept = np.array([cosine for cosine, _ in found]), np.array([100 * np.mean(shares) for _, shares in found])
    parts = []
    for what, rows in (
        ("all arms", cosines > 0),
        (f"those within {CROWD} of the best", cosines >= cosines.max() - CROWD),
    ):
        if rows.sum() > 2:
            slope = np.polyfit(cosines[rows], kept[rows], 1)[0] / 100
            correlation = np.corrcoef(cosines[rows], kept[rows])[0, 1]
            parts.append(
                f"{what} ({rows.sum()}): {slope:.2f} points of nDCG@10 per hundredth, correlation {correlation:.2f}"
            )
    return "; ".join(parts) + "\n"


def points(result: dict[str, Any]) -> tuple[float, list[float]]:
    """Return the mean cosine over collections, and the share of the teacher's nDCG@10 on each."""
    parts = result["collections"].values()
    return float(np.mean([part["cosine"] for part in parts])), [part["of_the_teacher"] for part in parts]


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw every arm: how close its queries are, and how much of the ranking is kept."""
    from matplotlib.figure import Figure

    done = {name: points(result) for name, result in results.items() if "failed" not in result}
    order = sorted(done, key=lambda name: done[name][0])
    best = done[order[-1]][0] if order else 0.0
    figure = Figure(figsize=(8, 10), dpi=140, layout="constrained")
    for axes, near in zip(figure.subplots(2, 1), (False, True), strict=True):
        for number, name in enumerate(order, 1):
            cosine, shares = done[name]
            crowd = cosine >= best - CROWD
            if near and not crowd:
                continue
            point = (cosine, 100 * np.mean(shares))
            axes.plot(*point, "o", color="#2a6f6b", label=None if near else f"{number}  {name}")
            if near or not crowd:
                axes.annotate(str(number), point, xytext=(6, -4), textcoords="offset points")
        axes.margins(0.15)
        axes.set(ylabel="% of the teacher's nDCG@10, mean", title="those to the right" if near else "all")
        axes.grid(alpha=0.3)
    axes.set_xlabel("mean cosine to the teacher, queries of collections")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=0, markerscale=0)
    figure.savefig(path)


if __name__ == "__main__":
    main()
