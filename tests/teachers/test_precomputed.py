"""edgeleaf.teachers.precomputed: each kind of folder, and what cannot be encoded any longer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import EdgeleafWarning, ModelError, RecipeError
from edgeleaf.recipe.sources import FilesSource
from edgeleaf.recipe.teachers import TeacherSpec
from edgeleaf.search.index import Index
from edgeleaf.teachers.opening import access_of, load_teacher, open_teacher, teacher_spec
from edgeleaf.texts.readers import file_texts
from tests.conftest import tiny_texts
from tests.teachers.test_decoder import manifest

TEXTS, QUERIES = tiny_texts(60, low=5, high=12, seed=2), tiny_texts(30, low=2, high=4, seed=3)
VECTORS = np.random.default_rng(0).standard_normal((90, 8)).astype(np.float32)
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)


def parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for name, texts, rows in (("documents", TEXTS, VECTORS[:60]), ("queries", QUERIES, VECTORS[60:])):
        table = pyarrow.table({"id": list(map(str, range(len(texts)))), "text": texts, "embedding": rows.tolist()})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=16)


def npy(folder: Path) -> None:
    """Documents by ids in another order, queries by order."""
    rows = [{"_id": f"d{n}", "title": text.split()[0], "text": text.split(" ", 1)[1]} for n, text in enumerate(TEXTS)]
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    (folder / "documents.ids.txt").write_text("".join(f"d{n}\n" for n in range(60)))
    np.save(folder / "documents.npy", VECTORS[:60].astype(np.float16))
    (folder / "queries.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in QUERIES))
    np.save(folder / "queries.npy", VECTORS[60:])


@pytest.fixture
def spec(tmp_path: Path) -> TeacherSpec:
    return TeacherSpec(str(tmp_path), kind="precomputed", query_prompt="q: ")


@pytest.mark.parametrize("write", [parquet, npy])
def test_texts_have_the_vectors_that_were_paid_for(spec: TeacherSpec, tmp_path: Path, write: Any) -> None:
    write(tmp_path)
    teacher = load_teacher(spec)
    order = np.random.default_rng(1).permutation(60)
    asked = [f" {TEXTS[n]}\t" for n in order]
    assert np.abs(teacher.encode(asked, kind="document") - UNIT[order]).max() < 1e-3
    assert np.abs(teacher.encode(QUERIES, kind="query") - UNIT[60:]).max() < 1e-6
    assert teacher.encode([], kind="query").shape == (0, 8)
    assert (teacher.space.dim, teacher.space.query_prompt) == (8, "q: ")
    with pytest.raises(ModelError, match="holds no vector of the query .*teacher cannot encode new texts"):
        teacher.encode([TEXTS[0]], kind="query")
    with pytest.raises(ModelError, match="holds no vector of the document 'new' and of 1 others"):
        teacher.encode(["new", TEXTS[0], "newer"], kind="document")
    suffix = "parquet" if write is parquet else "jsonl"
    source = FilesSource((f"documents.{suffix}",), "document")
    assert sorted(file_texts(source, tmp_path)) == sorted(TEXTS), "a recipe names the folder's texts as a source"

    made = manifest(teacher, access_of(spec))
    assert open_teacher(teacher_spec(made), made.space).space == teacher.space
    (tmp_path / "queries.npy").unlink(missing_ok=True)
    (tmp_path / "queries.parquet").unlink(missing_ok=True)
    with (
        pytest.warns(EdgeleafWarning, match="documents stand in for queries"),
        pytest.raises(ModelError, match="the bundle's space has"),
    ):
        open_teacher(teacher_spec(made), made.space)


def test_an_index_brings_its_space_and_documents_stand_in_for_queries(tmp_path: Path) -> None:
    space = VectorSpace("org/gone", "v1", "a" * 64, "mean", True, "query: ", "", 8)
    documents = [(str(n), text) for n, text in enumerate(TEXTS)]
    Index(space=space, documents=documents, vectors=UNIT[:60]).save(tmp_path / "index")
    spec = TeacherSpec(str(tmp_path / "index"), kind="precomputed")
    with pytest.warns(EdgeleafWarning, match="no vectors of queries: documents stand in for queries, and how close"):
        teacher = load_teacher(spec)
    assert teacher.space == space
    for kind in ("query", "document"):
        assert np.abs(teacher.encode(TEXTS, kind=kind) - UNIT[:60]).max() < 2e-3
    made = manifest(teacher, access_of(spec))
    assert made.space.teacher == "org/gone"
    with pytest.warns(EdgeleafWarning):
        assert open_teacher(teacher_spec(made), made.space).space == space
    with pytest.raises(RecipeError, match="an index, which says its own"):
        load_teacher(replace(spec, query_prompt="x"))
    Index(space=space, documents=documents, vectors=UNIT[:60]).shortened(4).save(tmp_path / "short")
    with pytest.raises(ModelError, match="is shortened to 4 numbers; give the whole index"):
        load_teacher(TeacherSpec(str(tmp_path / "short"), kind="precomputed"))


def broken(folder: Path, change: str) -> None:
    import pyarrow
    import pyarrow.parquet

    npy(folder)
    if change == "none":
        (folder / "documents.npy").unlink()
    elif change == "both":
        parquet(folder)
    elif change == "no texts":
        (folder / "documents.jsonl").unlink()
    elif change == "pickle":
        np.save(folder / "documents.npy", np.array([{}], dtype=object), allow_pickle=True)
    elif change == "integers":
        np.save(folder / "documents.npy", np.ones((60, 8), int))
    elif change == "too few":
        np.save(folder / "documents.npy", VECTORS[:59])
    elif change == "unknown id":
        (folder / "documents.ids.txt").write_text("d0\nd99\n")
    elif change == "widths":
        np.save(folder / "queries.npy", VECTORS[60:, :4])
    else:
        for path in folder.glob("documents.*"):
            path.unlink()
        column = {"ragged": [[1.0], [1.0, 2.0]], "null": [[1.0], None], "words": [["a"], ["b"]]}.get(change)
        table = {"text": ["a", "b"]} if column is None else {"text": ["a", "b"], "embedding": column}
        pyarrow.parquet.write_table(pyarrow.table(table), folder / "documents.parquet")
        if change == "no Parquet":
            (folder / "documents.parquet").write_text("text")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("none", "no documents.parquet, documents.npy or index.json in it"),
        ("both", "has documents.parquet and documents.npy; leave one out"),
        ("no texts", "documents.npy has no documents.jsonl beside it"),
        ("pickle", "documents.npy: not a .npy file of numbers"),
        ("integers", r"documents.npy: int64 \[60, 8\]; float \[texts, width\] is needed"),
        ("too few", "documents.npy: 59 vectors and 60 texts; each text needs its vector"),
        ("unknown id", "documents.ids.txt, line 2: documents.jsonl has no text with the id 'd99'"),
        ("widths", "queries have 4 numbers, documents 8"),
        ("ragged", "from row 0 on, not every row has a string under 'text'"),
        ("null", "from row 0 on, not every row has a string"),
        ("words", "from row 0 on, not every row has a string"),
        ("no column", "documents.parquet: no column 'embedding'; it has text"),
        ("no Parquet", "documents.parquet: cannot be read as Parquet"),
    ],
)
def test_a_damaged_folder_is_one_line(spec: TeacherSpec, tmp_path: Path, change: str, message: str) -> None:
    broken(tmp_path, change)
    with pytest.raises(ModelError, match=message) as error:
        load_teacher(spec)
    assert "\n" not in str(error.value)


def test_other_mistakes_are_one_line(spec: TeacherSpec, tmp_path: Path) -> None:
    npy(tmp_path)
    wrong = VECTORS[:60].copy()
    wrong[7, 3] = np.nan
    np.save(tmp_path / "documents.npy", wrong)
    teacher = load_teacher(spec)
    teacher.encode(TEXTS[:7], kind="document")
    with pytest.raises(ModelError, match=r"documents.npy: vector 7 \(from 0\) has length nan; mend it"):
        teacher.encode(TEXTS, kind="document")
    with pytest.raises(ModelError, match="no such folder; a teacher of kind precomputed is a folder of vectors"):
        load_teacher(replace(spec, model=str(tmp_path / "nowhere")))
    with pytest.raises(RecipeError, match="teacher.revision is not for a folder"):
        load_teacher(replace(spec, revision="main"))
