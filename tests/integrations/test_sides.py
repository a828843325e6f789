"""edgeleaf.integrations.sides: what all frameworks have in common."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgeleaf import BundleError, InputError, MissingExtra, ModelError
from edgeleaf.integrations.sides import Sides
from tests.conftest import WORDS
from tests.integrations.conftest import DOCUMENTS, QUERIES, Own, one_line

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {
    "langchain": ("langchain_core", "langchain-core"),
    "llama_index": ("llama_index", "llama-index-core"),
    "haystack": ("haystack", "haystack-ai"),
    "txtai": ("txtai", "txtai"),
}


def python(script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_queries_are_the_files_and_documents_the_teachers(tiny_bundle: Path, own: Own) -> None:
    sides = Sides(tiny_bundle)
    assert np.array_equal(sides.queries(QUERIES), own.queries)
    np.testing.assert_allclose(sides.documents(DOCUMENTS), own.documents, atol=1e-5)
    assert sides.queries([]).shape == sides.documents([]).shape == (0, sides.space.dim)


def test_documents_are_cut_where_an_index_cuts_them(tiny_bundle: Path, own: Own) -> None:
    """The teacher was distilled at 48 tokens and has 64; ``edgeleaf index`` lets it read all of them."""
    words = [word.lower() for word in WORDS[::2]]  # a token each
    long = list(itertools.islice(itertools.cycle(words), 60))
    whole, shorter = Sides(tiny_bundle).documents([" ".join(long), " ".join(long[:50])])
    assert not np.allclose(whole, shorter, atol=1e-4)


def test_a_query_loads_neither_teacher_nor_torch(tiny_bundle: Path) -> None:
    script = """
import sys
from edgeleaf.integrations.sides import Sides
sides = Sides(sys.argv[1])
assert "onnxruntime" not in sys.modules or not sides.__dict__.get("_encoder")
assert sides.queries(["lost parcel"]).shape[0] == 1
print([name for name in ("torch", "transformers", "sentence_transformers") if name in sys.modules])
"""
    done = python(script, tiny_bundle)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_without_the_teacher_documents_are_refused_by_name(without_teacher: Path) -> None:
    sides = Sides(without_teacher)
    assert len(sides.queries(QUERIES)) == len(QUERIES)
    with pytest.raises(ModelError):
        sides.documents(["a"])
    message = one_line(lambda: sides.documents(["a"]))
    assert message.startswith("documents are encoded by the teacher nobody/no-such-teacher, which cannot be opened: ")
    assert message.endswith("queries need only the bundle")


def test_another_model_in_the_teachers_place_is_refused(tiny_bundle: Path, tiny_student: Path, tmp_path: Path) -> None:
    import shutil

    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    manifest = json.loads((bundle / "edgeleaf.json").read_text(encoding="utf-8"))
    manifest["space"]["teacher"] = str(tiny_student)
    (bundle / "edgeleaf.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert "weights" in one_line(lambda: Sides(bundle).documents(["a"]))


def test_without_torch_the_line_names_the_extra(tiny_bundle: Path) -> None:
    script = """
import sys
sys.modules["torch"] = sys.modules["sentence_transformers"] = None
from edgeleaf import MissingExtra
from edgeleaf.integrations.sides import Sides
sides = Sides(sys.argv[1])
assert len(sides.queries(["a", "b"])) == 2
try:
    sides.documents(["a"])
except MissingExtra as error:
    print(error)
"""
    done = python(script, tiny_bundle)
    assert done.returncode == 0, done.stderr
    assert "tiny-teacher, which needs torch, sentence-transformers, not installed: pip install" in done.stdout
    assert "'edgeleaf[distill]'" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_fused_file_alone_has_no_documents(tiny_bundle: Path) -> None:
    sides = Sides(tiny_bundle / "query_encoder.onnx")
    assert len(sides.queries(["a"])) == 1
    assert "give the folder of its bundle" in one_line(lambda: sides.documents(["a"]))


def test_a_pickle_opens_the_bundle_again(
    tiny_bundle: Path, own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle.parent)
    data = pickle.dumps(Sides(tiny_bundle.name, threads=2).open())
    assert len(data) < 1000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(data)
    assert again.threads == 2
    assert np.array_equal(again.queries(QUERIES), own.queries)


def test_many_threads_open_it_once(tiny_bundle: Path, own: Own) -> None:
    sides, found = Sides(tiny_bundle), []

    def ask() -> None:
        found.append((sides.queries(QUERIES), sides.documents(DOCUMENTS[:4]), sides._teacher))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(teacher) for _, _, teacher in found}) == 1
    for asked, held, _ in found:
        assert np.array_equal(asked, own.queries)
        np.testing.assert_allclose(held, own.documents[:4], atol=1e-5)


@pytest.mark.parametrize("bundle", [None, 3, "", "  ", b"path", ["a"]])
def test_no_path(bundle: object) -> None:
    with pytest.raises(InputError, match="the path of a bundle folder is needed"):
        Sides(bundle)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, None])
def test_wrong_threads(threads: object, tiny_bundle: Path) -> None:
    with pytest.raises(InputError, match="a whole number from 1"):
        Sides(tiny_bundle, threads=threads)  # type: ignore[arg-type]


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file or folder"):
        Sides(tmp_path / "none").open()
    assert "no such" in one_line(lambda: Sides(tmp_path / "none").documents(["a"]))


@pytest.mark.parametrize("texts", ["one string", [None], [b"bytes"], {"a": 1}, ["\ud800"]])
def test_wrong_texts(tiny_bundle: Path, texts: object) -> None:
    for side in (Sides(tiny_bundle).queries, Sides(tiny_bundle).documents):
        with pytest.raises(InputError):
            side(texts)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_missing_framework_costs_one_line(name: str) -> None:
    package, distribution = FRAMEWORKS[name]
    script = f"""
import sys
sys.modules[{package!r}] = None
from edgeleaf import MissingExtra
try:
    import edgeleaf.integrations.{name}
except MissingExtra as error:
    print(error)
"""
    done = python(script)
    extra = name.replace("_", "-")
    line = f"{distribution} is not installed: pip install 'edgeleaf[{extra}]'\n"
    assert (done.returncode, done.stdout) == (0, line), done.stderr


def test_a_broken_framework_is_not_called_missing() -> None:
    from edgeleaf.extras import no_framework

    error = no_framework(
        ImportError("cannot import name 'Vectors' from 'txtai.vectors'", name="txtai.vectors"), extra="txtai"
    )
    assert isinstance(error, MissingExtra)
    assert str(error).startswith("txtai cannot be imported: cannot import name 'Vectors'")
