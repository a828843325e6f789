"""edgeleaf vectors: what a recipe's teacher gives for a file of texts, and what lies around each."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf.errors import EdgeleafError
from edgeleaf.pipeline.vectors import vectors
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.teachers.opening import load_teacher
from tests.teachers.decoders import make_tiny_decoder

pytest.importorskip("torch")

TEXTS = ["where is my parcel", "Grüße 😀", "list sort tree"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    model = make_tiny_decoder(tmp_path / "Mistral", "Mistral")
    path = tmp_path / "r.toml"
    path.write_text(f"""
name = "r"
[teacher]
model = "{model}"
kind = "decoder"
attention = "causal"
pooling = "last"
bos_token = "<s>"
eos_token = "</s>"
query_template = "Instruct: {{instruction}}\\nQuery: {{text}}\\nAnswer: "
instruction = "search"
examples = [{{ query = "who", response = "she" }}]
max_length = 8
[student]
model = "s"
[texts]
[[texts.sources]]
machine = true
""")
    (tmp_path / "t.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


def edgeleaf(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeleaf.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("role", ["query", "document"])
def test_rows_are_the_teachers_vectors_of_the_lines(recipe: Path, tmp_path: Path, role: Any) -> None:
    written = vectors(recipe, tmp_path / "t.txt", output=tmp_path / "new" / "v.npy", role=role)
    found = np.load(tmp_path / "new" / "v.npy")
    teacher = load_teacher(read_recipe(recipe).teacher)
    assert found.dtype == np.float32 and np.array_equal(found, teacher.encode(TEXTS, kind=role))
    assert (written.texts, written.space, written.window) == (3, teacher.space, 8)
    assert (written.sample.tokens or [""])[0] == "<s>" and (written.sample.tokens or [""])[-1] == "</s>"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["v.npy"]
    with gzip.open(tmp_path / "t2.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join([*TEXTS[::-1], "parcel " * 50]))
    written = vectors(recipe, tmp_path / "t2.txt.gz", output=tmp_path / "new" / "v.npy", role=role)
    assert np.abs(np.load(tmp_path / "new" / "v.npy")[2::-1] - found).max() < 1e-5
    assert written.longer is not None and written.longer >= 1


@pytest.mark.slow
def test_what_is_put_around_is_said(recipe: Path, tmp_path: Path) -> None:
    done = edgeleaf("vectors", recipe, tmp_path / "t.txt", "-o", tmp_path / "v.npy", "--role", "query", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    prompt, suffix = "Instruct: search\nQuery: ", "\nAnswer: "
    context = f"{prompt}who{suffix}she\n\n"
    assert said["around"]["query"] == {"context": context, "prompt": prompt, "suffix": suffix}
    assert said["around"]["document"] == {"context": "", "prompt": "", "suffix": ""}
    assert said["sample"]["text"] == f"{context}{prompt}{TEXTS[0]}{suffix}"
    assert len(said["sample"]["ids"]) == len(said["sample"]["tokens"])
    assert said["space"]["query_suffix"] == suffix and said["space"]["id"].startswith("Mistral/32/")
    done = edgeleaf("vectors", recipe, tmp_path / "t.txt", "-o", tmp_path / "v.npy", "--role", "document")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'v.npy'}: 3 document vectors of 32 numbers, space Mistral/32/")
    assert lines[1].startswith("around a query: examples 'Instruct: search\\nQuery: who")
    assert lines[2] == "around a document: first token '<s>', last token '</s>'"
    assert lines[3] == "line 1, as the teacher reads it: 'where is my parcel'"
    assert lines[4].startswith("its ") and "tokens: <s>=1 " in lines[4] and lines[4].endswith("</s>=2")


def test_a_sentence_transformers_model_too(tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("lost parcel\nriver\n")
    written = vectors(tiny_recipe, tmp_path / "t.txt", output=tmp_path / "v.npy", role="query")
    teacher = load_teacher(read_recipe(tiny_recipe).teacher)
    assert np.array_equal(np.load(tmp_path / "v.npy"), teacher.encode(["lost parcel", "river"], kind="query"))
    assert written.sample.text == "query: lost parcel"
    assert (written.sample.tokens or ())[:1] == ("[CLS]",)


@pytest.mark.parametrize(
    ("text", "output", "role", "message"),
    [
        ("a\n", "v.npy", "both", "role is 'both'; allowed: query, document"),
        ("a\n", "v.bin", "query", "v.bin: vectors are written as .npy"),
        ("", "v.npy", "query", "t.txt: no text in it"),
        ("a\n\nb\n", "v.npy", "query", "t.txt, line 2: blank; row n of the vectors is line n"),
        ("a\n\udc80\n", "v.npy", "query", "not UTF-8"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    recipe: Path, tmp_path: Path, text: str, output: str, role: str, message: str
) -> None:
    (tmp_path / "t.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(EdgeleafError, match=message):
        vectors(recipe, tmp_path / "t.txt", output=tmp_path / "new" / output, role=role)
    assert not (tmp_path / "new").exists()
    with pytest.raises(EdgeleafError, match="texts are read from .txt, one per line"):
        vectors(recipe, tmp_path / "t.jsonl", output=tmp_path / "v.npy", role="query")


def test_a_failure_leaves_the_old_file(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeleaf.teachers.decoder import DecoderTeacher

    vectors(recipe, tmp_path / "t.txt", output=tmp_path / "out" / "v.npy", role="query")
    before = (tmp_path / "out" / "v.npy").read_bytes()

    def fail(self: Any, texts: Any, *, kind: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(DecoderTeacher, "encode", fail)
    with pytest.raises(MemoryError):
        vectors(recipe, tmp_path / "t.txt", output=tmp_path / "out" / "v.npy", role="query")
    assert (tmp_path / "out" / "v.npy").read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["v.npy"]
