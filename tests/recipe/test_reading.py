"""Recipes: what is read, and the message for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeleaf.errors import RecipeError
from edgeleaf.recipe import specs as recipe
from edgeleaf.recipe.presets import PRESETS, gates_for
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.recipe.sources import FilesSource, MachineSource

FOLDER = Path(__file__).parent.parent.parent / "export" / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*.toml") if not path.name.startswith("teach-"))
GOOD = """
name = "x"
[teacher]
model = "t"
[student]
model = "s"
[texts]
[[texts.sources]]
machine = true
"""


def read(tmp_path: Path, text: str) -> recipe.Recipe:
    path = tmp_path / "r.toml"
    path.write_text(text)
    return read_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_ship_are_valid(path: Path) -> None:
    assert read_recipe(path).name == path.stem


def test_the_recipes_are_there() -> None:
    assert {path.stem for path in RECIPES} >= {"demo", "mpnet", "mpnet-gpu", "leaf-ir", "leaf-mt"}


def test_sources_and_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD + '[[texts.sources]]\nfiles = ["a.txt"]\nkind = "query"\nweight = 0.5\ncolumn = 0\n')
    assert found.texts.sources == (MachineSource(), FilesSource(("a.txt",), "query", column=0, weight=0.5))
    assert found.objective.batch_size == 32
    assert found.gates == recipe.Gates()
    assert found.gates.file_mb is None


def test_a_student_may_keep_no_layer(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).student.layers is None
    for text, layers in (("[]", ()), ("[0, 2, 5]", (0, 2, 5))):
        found = read(tmp_path, GOOD.replace("[student]", f"[student]\nlayers = {text}"))
        assert found.student.layers == layers


def test_a_preset_fills_the_gates_that_a_recipe_leaves_out(tmp_path: Path) -> None:
    text = GOOD + "[gates]\nquantization_loss = 0.2\nfile_mb = false\ntoken_mismatches = 3\n"
    given = read(tmp_path, text).gates
    filled = gates_for("int8", given)
    assert (filled.quantization_loss, filled.file_mb, filled.token_mismatches) == (0.2, False, 3)
    assert (filled.quantization_cosine_mean, filled.quantization_overlap_loss) == (0.998, 0.01)
    assert filled.cosine_mean is None
    assert gates_for("int8", filled) == filled


def test_what_quantisation_may_cost_is_the_presets() -> None:
    nothing = recipe.Gates()
    assert set(PRESETS) == {"int8", "int4", "int8-weights", "int4-weights", "fp16", "fp32"}
    sizes = {preset: gates_for(preset, nothing).file_mb for preset in PRESETS}
    assert sizes == {
        "int8": 24.0,
        "int4": 14.5,
        "int8-weights": 24.0,
        "int4-weights": 15.5,
        "fp16": None,
        "fp32": None,
    }
    assert gates_for("int4", nothing).quantization_cosine_min is None
    assert gates_for("fp16", nothing).quantization_ndcg_loss == 0.002
    assert all(gates_for(preset, nothing).token_mismatches == 0 for preset in PRESETS)
    with pytest.raises(RecipeError, match='preset is "int2"; allowed: "int8", "int4", "int8-weights", "int4-w'):
        gates_for("int2", nothing)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('model = "t"', 'model = "t"\nmodle = 1'), "unknown key teacher.modle; known here: model, revision"),
        (('name = "x"', 'name = "x"\ncolour = 1'), "unknown key colour; known here: name, teacher"),
        (('name = "x"', "name = 3"), "name is 3; a string is needed"),
        (('name = "x"', ""), "name is missing"),
        (("[texts]", "[texts]\nlimit = 1"), "texts.limit is 1; allowed: 64 to 1000000000"),
        (("[texts]", "[texts]\nlimit = true"), "texts.limit is true; a whole number is needed"),
        (("[texts]", "[texts]\nlimit = 10.5"), "texts.limit is 10.5; a whole number is needed"),
        (("machine = true", "machine = true\nweight = -1"), "texts.sources[0].weight is -1.0; allowed: 0 to"),
        (("machine = true", "machine = false"), "texts.sources[0].machine is false; allowed: true"),
        (("machine = true", ""), "texts.sources[0] needs exactly one of: files"),
        (
            ("machine = true", 'files = ["a"]\nkind = "song"'),
            'texts.sources[0].kind is "song"; allowed: "query", "document"',
        ),
        (("machine = true", 'files = "a"\nkind = "query"'), 'texts.sources[0].files is "a"; a list of str is needed'),
        (("[student]", '[objective]\nname = "l3"\n[student]'), 'objective.name is "l3"; allowed: "l2"'),
        (
            ("[student]", "[objective]\nlearning_rate = 2.0\n[student]"),
            "objective.learning_rate is 2.0; allowed: 1e-08",
        ),
        (("[student]", "[benchmark]\nlengths = [1000]\n[student]"), "benchmark.lengths[0] is 1000; allowed: 4, 8, 16"),
        (("[student]", '[student]\nlayers = "all"'), 'student.layers is "all"; a list of int is needed'),
        (("[student]", "[student]\nlayers = [0, -1]"), r"student.layers[1] is -1; allowed: 0 to 10000"),
        (("[student]", "[benchmark]\nlengths = []\n[student]"), "benchmark.lengths is []; a list of numbers is needed"),
        (
            ('model = "s"', 'model = "s"\nmax_length = 16\n[benchmark]\nlengths = [64]'),
            "benchmark.lengths start at 64 tokens; student.max_length is 16",
        ),
        (("[student]", "[benchmark]\nthreads = [0]\n[student]"), "benchmark.threads[0] is 0; allowed: 1 to"),
        (("[student]", "[gates]\nfile_mb = true\n[student]"), "gates.file_mb is true; a number is needed"),
        (("[student]", '[gates]\ncosine_mean = "high"\n[student]'), 'gates.cosine_mean is "high"; a number is needed'),
    ],
)
def test_mistakes_name_file_key_and_what_is_allowed(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, GOOD.replace(*change))
    assert f"{tmp_path / 'r.toml'}: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_toml_errors_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"r\.toml: not valid TOML: .*line 2"):
        read(tmp_path, 'name = "x"\nteacher = \n')


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "none.toml")
