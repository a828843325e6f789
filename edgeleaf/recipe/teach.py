"""The tables of a recipe that ``edgeleaf teach`` reads: what a model is taught, stage by stage.

Every technique is a table of its own inside a stage. A stage without the table does not use the technique.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from edgeleaf.errors import RecipeError
from edgeleaf.recipe.reading import read_table, recipe_toml
from edgeleaf.recipe.specs import Recipe, TeacherSpec, shown
from edgeleaf.recipe.teachers import between

QUERY, INSTRUCTION = "{query}", "{instruction}"
TEMPLATE = f"Instruct: {INSTRUCTION}\nQuery: {QUERY}"
"""LG-ANNA-Embedding's template of a query; documents have none."""


@dataclass(frozen=True)
class ExampleSpec:
    """An example of a task for its queries: a query and the text that answers it."""

    query: str
    response: str


@dataclass(frozen=True)
class PairFiles:
    """Pairs from files: .jsonl with the keys ``query``, ``positive`` (a string or a list) and optionally ``negatives``
    (a list), or .tsv whose first line names the columns ``query``, ``positive`` and any number of ``negative``.

    Attributes:
        files: paths or globs; ``~`` and ``${VARIABLE}`` are expanded, relative paths start at the recipe's folder.
        limit: greatest number of pairs, chosen by the seed.
        task: name of the task; sources with the same name share batches. By default each source is its own task.
        instruction: what the task's queries ask for; goes into the stage's template.
        examples: examples of the task; by default they are drawn from its pairs.
    """

    files: tuple[str, ...]
    limit: int | None = between(1, 10**9, None)
    task: str | None = None
    instruction: str | None = None
    examples: tuple[ExampleSpec, ...] | None = None


@dataclass(frozen=True)
class PairCollection:
    """Pairs from a folder in BEIR's layout: every judgment above 0 is a pair, and documents that no query of these
    judgments has are texts to mine negatives from.

    Attributes:
        collection: the folder; ``${VARIABLE}`` is expanded.
        qrels: the judgments inside it.
        limit, task, instruction, examples: as for files.
    """

    collection: str
    qrels: str = "qrels/train.tsv"
    limit: int | None = between(1, 10**9, None)
    task: str | None = None
    instruction: str | None = None
    examples: tuple[ExampleSpec, ...] | None = None


@dataclass(frozen=True)
class PairsMade:
    """Pairs made from documents, without labels.

    Attributes:
        documents: paths or globs of .jsonl (``title`` and ``text``) or .txt, as for files.
        made: "titles": a title and its passage, from .jsonl with titles or from .txt lines such as ``TERM : TEXT``;
            "sentences": a sentence and the rest of its paragraph.
        limit, task, instruction, examples: as for files.
    """

    documents: tuple[str, ...]
    made: Literal["titles", "sentences"]
    limit: int | None = between(1, 10**9, None)
    task: str | None = None
    instruction: str | None = None
    examples: tuple[ExampleSpec, ...] | None = None


PairSource = PairFiles | PairCollection | PairsMade


@dataclass(frozen=True)
class FocalSpec:
    """Weights queries by their difficulty, see :mod:`edgeleaf.training.contrastive.focal`."""

    gamma: float = between(0, 10, 0.5)


@dataclass(frozen=True)
class MixingSpec:
    """Makes harder negatives from a query's own, see :mod:`edgeleaf.training.contrastive.mixing`."""

    kinds: tuple[Literal["pairs", "lists"], ...] = ("pairs", "lists")
    count: int = between(1, 64, 2)
    """Mixes of two negatives a query. There is one mix of all of them."""


@dataclass(frozen=True)
class MatryoshkaSpec:
    """Trains shorter vectors too, see :mod:`edgeleaf.training.contrastive.matryoshka`."""

    dims: tuple[int, ...]
    """Widths, the whole one included if it is to be trained."""
    weights: tuple[float, ...] | None = between(0, 1000, None)
    """Weight of each width's loss; all 1 by default."""


@dataclass(frozen=True)
class MiningSpec:
    """Finds negatives among the documents, see :mod:`edgeleaf.training.contrastive.mining`."""

    count: int = between(1, 64, 7)
    ranks: tuple[int, ...] = (50, 100)
    """First and last rank, from 1, positives left out, among which negatives are drawn."""
    margin: float | None = between(0, 1, None)
    """Keep a negative if its similarity is at most this share of the positive's; LG-ANNA's value is 0.95."""
    filter_rank: int | None = between(1, 10**6, None)
    """Leave a pair out if its positive ranks lower than this; KaLM's value is 50."""


@dataclass(frozen=True)
class DistillationSpec:
    """Learns the similarities of a stronger model, see :mod:`edgeleaf.training.contrastive.distillation`."""

    teacher: TeacherSpec
    temperature: float = between(1e-4, 100, 0.05)
    weight: float = between(0, 1000, 1.0)


@dataclass(frozen=True)
class LabelsSpec:
    """Learns graded labels of each query's candidates, see :mod:`edgeleaf.training.contrastive.labels`."""

    reranker: str | None = None
    """A cross-encoder of sentence-transformers, local folder or hub id; by default the fused ranks are the labels."""
    temperature: float = between(1e-4, 100, 0.05)
    """Of labels and similarities."""
    weight: float = between(0, 1000, 1.0)


@dataclass(frozen=True)
class FrozenSpec:
    """Teaches a student its queries only, among its teacher's documents; a last phase after LEAF, see
    :mod:`edgeleaf.training.contrastive.frozen`."""

    teacher: TeacherSpec
    beta: float = between(0, 1000, 1.0)
    temperature: float = between(1e-4, 100, 0.05)


@dataclass(frozen=True)
class StageSpec:
    """One stage of teaching: its pairs, its steps, its techniques."""

    pairs: tuple[PairSource, ...]
    epochs: float = between(0, 1000, 1.0)
    """Passes over the pairs."""
    steps: int | None = between(1, 10**9, None)
    """Number of steps, in place of passes."""
    batch_size: int = between(2, 65536, 32)
    mini_batch: int | None = between(1, 65536, None)
    """Texts whose activations are in memory at a time, see :mod:`edgeleaf.training.contrastive.cached`."""
    learning_rate: float = between(1e-8, 1.0, 2e-5)
    warmup: float = between(0, 0.9, 0.1)
    """Share of the steps with a rising learning rate."""
    weight_decay: float = between(0, 1, 0.01)
    checkpoint_steps: int = between(1, 10**9, 100)
    """Steps between two checkpoints; at each one the held-out pairs are judged."""
    temperature: float = between(1e-4, 100, 0.05)
    """Temperature of the contrastive loss; KaLM's is 0.01."""
    negatives: int = between(0, 64, 7)
    """Greatest number of a query's own negatives, from its file or mined."""
    homogeneous: bool = False
    """Every batch has pairs of one task only."""
    shared: float = between(0, 1, 0.0)
    """With homogeneous batches: share of each task's pairs that is mixed into batches of all tasks."""
    template: str | None = None
    """Text of a query with the placeholders {query}, at its end, and {instruction}."""
    examples: int = between(0, 16, 0)
    """Greatest number of examples before a query; see :mod:`edgeleaf.training.contrastive.instructions`."""
    focal: FocalSpec | None = None
    mixing: MixingSpec | None = None
    matryoshka: MatryoshkaSpec | None = None
    mining: MiningSpec | None = None
    distillation: DistillationSpec | None = None
    labels: LabelsSpec | None = None
    frozen: FrozenSpec | None = None


@dataclass(frozen=True)
class SoupSpec:
    """Averages models, see :mod:`edgeleaf.training.contrastive.soup`."""

    kind: Literal["uniform", "greedy"] = "uniform"
    checkpoints: int = between(1, 1000, 3)
    """The last checkpoints of the last stage, its end included."""
    models: tuple[str, ...] | None = None
    """Folders of other models that were taught from the same start."""


@dataclass(frozen=True)
class TeachSpec:
    """A model, and what it is taught."""

    model: str
    stages: tuple[StageSpec, ...]
    revision: str | None = None
    max_length: int = between(8, 32768, 128)
    """Window in tokens, in training and in the model that is written."""
    held_out: int = between(0, 10**6, 100)
    """Queries of the last stage that are set aside and judge the model; 0 for none."""
    document_prompt: str = ""
    """Text before each document, where the model has one; queries have their stage's template."""
    soup: SoupSpec | None = None


@dataclass(frozen=True)
class TeachRecipe:
    """A recipe as ``edgeleaf teach`` reads it."""

    name: str
    teach: TeachSpec
    description: str = ""
    seed: int = between(0, 2**31 - 1, 0)


def read_teach_recipe(path: Path | str) -> TeachRecipe:
    """Read the parts of a recipe that ``edgeleaf teach`` needs; those for ``edgeleaf run`` may stand beside them.

    Raises:
        RecipeError: no such file, no table [teach], or the reasons of :func:`edgeleaf.recipe.reading.read_recipe`.
    """
    path = Path(path)
    table = recipe_toml(path)
    try:
        if "teach" not in table:
            raise RecipeError(
                "teach is missing; edgeleaf teach needs a table [teach] and at least one [[teach.stages]]"
            )
        others = set(Recipe.__dataclass_fields__) - set(TeachRecipe.__dataclass_fields__)
        recipe = cast(TeachRecipe, read_table(TeachRecipe, {k: v for k, v in table.items() if k not in others}))
        for number, stage in enumerate(recipe.teach.stages):
            _check(stage, f"teach.stages[{number}]")
        if recipe.teach.soup is not None and recipe.teach.soup.kind == "greedy" and not recipe.teach.held_out:
            raise RecipeError("teach.soup is greedy, which is judged by held-out pairs; teach.held_out is 0")
        return recipe
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def _check(stage: StageSpec, key: str) -> None:
    _check_template(stage, key)
    if stage.matryoshka is not None:
        dims, weights = stage.matryoshka.dims, stage.matryoshka.weights
        if weights is not None and len(weights) != len(dims):
            raise RecipeError(f"{key}.matryoshka has {len(dims)} dims and {len(weights)} weights; give each dim one")
        if weights is not None and not any(weights):
            raise RecipeError(f"{key}.matryoshka.weights are all 0; give at least one dim a weight")
        if len(set(dims)) < len(dims):
            raise RecipeError(f"{key}.matryoshka.dims is {shown(dims)}; give each dim once")
    if stage.mining is not None:
        ranks = stage.mining.ranks
        if len(ranks) != 2 or ranks[0] > ranks[1]:
            raise RecipeError(f"{key}.mining.ranks is {shown(ranks)}; two are needed, the first and the last")
    if stage.shared and not stage.homogeneous:
        raise RecipeError(f"{key}.shared is {stage.shared} without homogeneous = true; leave it out, or set that")
    most = stage.mining.count if stage.mining is not None else stage.negatives
    if stage.mixing is not None and min(most, stage.negatives) < 2:
        raise RecipeError(f"{key}.mixing needs at least two negatives a query; there are {min(most, stage.negatives)}")
    if stage.labels is not None and not stage.negatives:
        raise RecipeError(f"{key}.labels needs negatives beside the positive; {key}.negatives is 0")
    if stage.frozen is not None:
        for name in ("matryoshka", "distillation", "labels"):
            if getattr(stage, name) is not None:
                raise RecipeError(f"{key} has both frozen and {name}, which trains documents; leave one out")


def _check_template(stage: StageSpec, key: str) -> None:
    template = stage.template
    if template is not None and not template.endswith(QUERY):
        raise RecipeError(f"{key}.template is {shown(template)}; it must end with the placeholder {QUERY}")
    if template is not None and template.count(QUERY) > 1:
        raise RecipeError(f"{key}.template is {shown(template)}; it must have the placeholder {QUERY} once")
    for number, source in enumerate(stage.pairs):
        place = f"{key}.pairs[{number}]"
        if source.instruction is not None and template is not None and INSTRUCTION not in template:
            raise RecipeError(f"{place} has an instruction; {key}.template needs the placeholder {INSTRUCTION} for it")
        if source.instruction is None and template is not None and INSTRUCTION in template:
            raise RecipeError(f"{place}.instruction is missing; {key}.template has the placeholder {INSTRUCTION}")
        if stage.examples and source.instruction is None:
            raise RecipeError(f"{place}.instruction is missing; examples before a query stand after an instruction")
        for entry, example in enumerate(source.examples or ()):
            if " ".join(example.query.casefold().split()) == " ".join(example.response.casefold().split()):
                raise RecipeError(
                    f"{place}.examples[{entry}] has its query {shown(example.query)} as its response; "
                    "give the text that answers it"
                )
