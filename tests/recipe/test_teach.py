"""Recipes of ``edgeleaf teach``: what is read, and the message for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeleaf.errors import RecipeError
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.recipe.teach import PairCollection, PairFiles, PairsMade, TeachRecipe, read_teach_recipe
from tests.recipe.test_reading import GOOD as RUN

RECIPES = sorted((Path(__file__).parent.parent.parent / "export" / "recipes").glob("teach-*.toml"))
TEACH = """
[teach]
model = "m"
[[teach.stages]]
"""
PAIRS = """
[[teach.stages.pairs]]
files = ["a.jsonl"]
"""
GOOD = f'name = "x"\n{TEACH}{PAIRS}'


def read(tmp_path: Path, text: str) -> TeachRecipe:
    path = tmp_path / "r.toml"
    path.write_text(text)
    return read_teach_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_ship_are_valid(path: Path) -> None:
    assert read_teach_recipe(path).name == path.stem


def test_there_is_one() -> None:
    assert RECIPES


def test_a_stage_uses_no_technique_unless_asked(tmp_path: Path) -> None:
    (stage,) = read(tmp_path, GOOD).teach.stages
    names = ("focal", "mixing", "matryoshka", "mining", "distillation", "labels", "frozen", "template", "mini_batch")
    assert all(getattr(stage, name) is None for name in names)
    assert not stage.homogeneous and not stage.examples


def test_sources_are_told_apart_by_their_first_key(tmp_path: Path) -> None:
    text = f"""{GOOD}
[[teach.stages]]
[teach.stages.focal]
[teach.stages.mining]
ranks = [1, 30]
margin = 0.95
[[teach.stages.pairs]]
collection = "c"
[[teach.stages.pairs]]
documents = ["d.txt"]
made = "titles"
examples = [{{query = "a", response = "b"}}]
"""
    first, second = read(tmp_path, text).teach.stages
    assert [type(source) for source in first.pairs] == [PairFiles]
    assert [type(source) for source in second.pairs] == [PairCollection, PairsMade]
    assert second.focal is not None and second.focal.gamma == 0.5
    assert second.mining is not None and second.mining.ranks == (1, 30) and second.mining.count == 7


def test_one_recipe_may_have_the_tables_of_run_too(tmp_path: Path) -> None:
    both = RUN + TEACH + PAIRS
    assert read(tmp_path, both).teach.model == "m"
    assert read_recipe(tmp_path / "r.toml").teacher.model == "t"


def test_a_recipe_for_teach_alone_is_named_as_such(tmp_path: Path) -> None:
    read(tmp_path, GOOD)
    with pytest.raises(RecipeError, match=r"only the table \[teach\], which edgeleaf teach reads"):
        read_recipe(tmp_path / "r.toml")


def stage(settings: str, pairs: str = PAIRS) -> str:
    return f'name = "x"\n{TEACH}{settings}\n{pairs}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n', "teach is missing; edgeleaf teach needs a table [teach]"),
        ('name = "x"\n[teach]\nmodel = "m"\n', "teach.stages is missing"),
        ('name = "x"\n[teach]\nmodel = "m"\nstages = []\n', "at least one [[teach.stages]] is needed"),
        (stage("", ""), "teach.stages[0].pairs is missing"),
        (stage("pairs = []", ""), "at least one [[teach.stages.pairs]] is needed"),
        (stage("", "[[teach.stages.pairs]]\nlimit = 3"), "needs exactly one of the keys files, collection, documents"),
        (
            stage("", '[[teach.stages.pairs]]\nfiles = ["a"]\nmade = "titles"'),
            "unknown key teach.stages[0].pairs[0].made",
        ),
        (stage("focal = {gamma = -0.5}"), "teach.stages[0].focal.gamma is -0.5; allowed: 0 to 10"),
        (stage("focal = {gamma = nan}"), "teach.stages[0].focal.gamma is nan; allowed: 0 to 10"),
        (stage("focal = true"), "teach.stages[0].focal is true; a table [teach.stages[0].focal] is needed"),
        (stage("temperature = 0"), "teach.stages[0].temperature is 0.0; allowed: 0.0001 to 100"),
        (stage("temperature = inf"), "teach.stages[0].temperature is inf"),
        (stage('temperature = "0.05"'), 'teach.stages[0].temperature is "0.05"; a number is needed'),
        (stage('template = "Query: "'), "it must end with the placeholder {query}"),
        (stage('template = "{query} please"'), "it must end with the placeholder {query}"),
        (stage('template = "{query} {query}"'), "it must have the placeholder {query} once"),
        (stage('template = "{instruction}: {query}"'), "pairs[0].instruction is missing"),
        (
            stage('template = "q: {query}"', PAIRS + 'instruction = "Find."'),
            "teach.stages[0].template needs the placeholder {instruction}",
        ),
        (stage("examples = 1"), "pairs[0].instruction is missing; examples before a query stand after an instruction"),
        (
            stage("", PAIRS + 'examples = [{query = "Why so?", response = " why  SO?"}]'),
            'teach.stages[0].pairs[0].examples[0] has its query "Why so?" as its response',
        ),
        (stage("shared = 0.5"), "shared is 0.5 without homogeneous = true"),
        (stage("matryoshka = {dims = [384, 128], weights = [1.0]}"), "has 2 dims and 1 weights"),
        (stage("matryoshka = {dims = [384, 384]}"), "give each dim once"),
        (stage("matryoshka = {dims = [384], weights = [0.0]}"), "are all 0"),
        (stage("matryoshka = {dims = [0]}"), "matryoshka.dims[0] is 0; allowed: 1 to"),
        (stage("mining = {ranks = [100, 50]}"), "two are needed, the first and the last"),
        (stage("mining = {ranks = [50]}"), "two are needed, the first and the last"),
        (stage("mining = {margin = 1.5}"), "mining.margin is 1.5; allowed: 0 to 1"),
        (stage("negatives = 1\nmixing = {}"), "mixing needs at least two negatives a query; there are 1"),
        (stage('mixing = {kinds = ["triples"]}'), 'kinds[0] is "triples"; allowed: "pairs", "lists"'),
        (stage("mixing = {kinds = []}"), "a list of strings is needed"),
        (stage("negatives = 0\nlabels = {}"), "labels needs negatives"),
        (stage('labels = {}\nfrozen = {teacher = {model = "t"}}'), "has both frozen and labels"),
        (stage("batch_size = 1"), "batch_size is 1; allowed: 2 to"),
        (stage("") + '[teach.soup]\nkind = "greedy"\n[teach2]\n', "unknown key teach2"),
    ],
)
def test_each_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_greedy_soup_needs_held_out_pairs(tmp_path: Path) -> None:
    text = GOOD.replace('model = "m"', 'model = "m"\nheld_out = 0\nsoup = {kind = "greedy"}')
    with pytest.raises(RecipeError, match=r"greedy, which is judged by held-out pairs; teach\.held_out is 0"):
        read(tmp_path, text)
