"""edgeleaf.pipeline.index: what a second run encodes, what goes, what is cut, and what a killed run leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.errors import BundleError, InputError, TextsError
from edgeleaf.pipeline import index
from edgeleaf.pipeline.index import make_index, search_index
from edgeleaf.search.stores import open_store, store_of
from edgeleaf.teachers import cache
from tests.conftest import tiny_texts
from tests.search.places import KINDS, place_of

TEXTS = tiny_texts(30, low=5, high=9, seed=51)


def write_rows(path: Path, rows: dict[str, str], **metadata: Any) -> Path:
    path.write_text("".join(json.dumps({"_id": key, "text": text, **metadata}) + "\n" for key, text in rows.items()))
    return path


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the teacher is asked for, in order."""
    asked: list[str] = []
    real = cache.teacher_vectors

    def counted(texts: Sequence[Any], *given: Any, **more: Any) -> Any:
        asked.extend(text.text for text in texts)
        return real(texts, *given, **more)

    monkeypatch.setattr(cache, "teacher_vectors", counted)
    return asked


def counts(bundle: Path, documents: Path, output: str, **given: Any) -> dict[str, int]:
    made = make_index(bundle, documents, output=output, **given)
    made.index.close()
    plain = made.plain()
    return {key: plain[key] for key in ("documents", "passages", "encoded", "updated", "unchanged", "deleted", "cut")}


@pytest.mark.parametrize("kind", ["folder", "sqlite"])
def test_the_second_run_encodes_only_what_changed(
    tiny_bundle: Path, tmp_path: Path, encoded: list[str], kind: str, request: pytest.FixtureRequest
) -> None:
    place, corpus, rows = place_of(kind, tmp_path, request), tmp_path / "c.jsonl", dict(enumerate(TEXTS[:10]))
    named = {f"d{n}": text for n, text in rows.items()}
    assert counts(tiny_bundle, write_rows(corpus, named), place) == {
        "documents": 10,
        "passages": 10,
        "encoded": 10,
        "updated": 0,
        "unchanged": 0,
        "deleted": 0,
        "cut": 0,
    }
    encoded.clear()
    again = counts(tiny_bundle, corpus, place)
    assert (again["encoded"], again["unchanged"], again["deleted"], encoded) == (0, 10, 0, [])
    del named["d9"]
    write_rows(corpus, named | {"d0": TEXTS[20], "n": TEXTS[1]}, lang="en")  # one text under two ids is two documents
    third = counts(tiny_bundle, corpus, place)
    assert third | {"cut": 0} == {
        "documents": 10,
        "passages": 10,
        "encoded": 2,
        "updated": 8,
        "unchanged": 0,
        "deleted": 1,
        "cut": 0,
    }
    assert encoded == [TEXTS[20], TEXTS[1]]
    store, encoder = open_store(place), QueryEncoder.load(tiny_bundle)
    assert len(store) == 10
    hits = store.search(encoder.encode([TEXTS[1]]), space=encoder.space, k=20, where="lang = 'en'")[0]
    assert {hit.id for hit in hits} == {"n", *(f"d{n}" for n in range(9))}
    at = {hit.id: hit.score for hit in hits}
    assert at["n"] == pytest.approx(at["d1"], abs=1e-6)
    store.close()
    whole = make_index(tiny_bundle, corpus, output=f"{tmp_path}/whole").index
    fresh = whole.search(encoder.encode(TEXTS[:4]), space=encoder.space, k=10)
    kept = search_index(tiny_bundle, place, TEXTS[:4], k=10)
    for a, b in zip(fresh, kept, strict=True):
        assert {hit.id: hit.score for hit in a} == pytest.approx({hit.id: hit.score for hit in b}, abs=2e-3)


@pytest.mark.parametrize("kind", ["folder", "sqlite", "milvus"])
def test_the_second_run_opens_the_store_once_and_sees_what_came_meanwhile(
    tiny_bundle: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, corpus = place_of(kind, tmp_path, request), write_rows(tmp_path / "c.jsonl", {"a": TEXTS[0], "b": TEXTS[1]})
    counts(tiny_bundle, corpus, place)
    store = store_of(place)
    opened: list[str] = []
    real, read = store.opened, index.read_input
    monkeypatch.setattr(store, "opened", lambda place: opened.append(place) or real(place))

    def meanwhile(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(index, "read_input", read)
        counts(tiny_bundle, write_rows(tmp_path / "other.jsonl", {"c": TEXTS[2]}), place)
        return read(*given, **named)

    monkeypatch.setattr(index, "read_input", meanwhile)
    write_rows(corpus, {"a": TEXTS[0], "c": TEXTS[2]})
    made = counts(tiny_bundle, corpus, place)
    assert (made["encoded"], made["updated"], made["unchanged"], made["deleted"]) == (0, 1, 1, 1)
    monkeypatch.undo()
    del opened[:]
    monkeypatch.setattr(store, "opened", lambda place: opened.append(place) or real(place))
    assert counts(tiny_bundle, corpus, place)["unchanged"] == 2
    assert len(opened) == 1


def test_each_input_is_the_truth_about_its_own(tiny_bundle: Path, tmp_path: Path) -> None:
    place, folder = f"{tmp_path}/store", tmp_path / "docs"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.md").write_text(TEXTS[n])
    one, two = (
        write_rows(tmp_path / name, {name: TEXTS[5], f"{name}2": TEXTS[6]}) for name in ("one.jsonl", "two.jsonl")
    )
    for documents in (folder, one, two):
        counts(tiny_bundle, documents, place)
    assert len(open_store(place)) == 7
    (folder / "1.md").unlink()
    assert counts(tiny_bundle, folder, place)["deleted"] == 1
    write_rows(one, {"one.jsonl": TEXTS[5]})
    assert counts(tiny_bundle, one, place)["deleted"] == 1
    assert sorted(dict(open_store(place).known())) == ["0.md#1", "2.md#1", "one.jsonl", "two.jsonl", "two.jsonl2"]
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "0.md").write_text(TEXTS[0])
    moved = counts(tiny_bundle, tmp_path / "moved", place)  # a folder is the whole truth about what came from folders
    assert (moved["unchanged"], moved["encoded"], moved["deleted"]) == (1, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_folder_is_the_whole_truth_too(
    tiny_bundle: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    place, folder = place_of(kind, tmp_path, request), tmp_path / "docs"
    folder.mkdir()
    with pytest.raises(TextsError, match="docs: no document in it"):
        counts(tiny_bundle, folder, place)
    (folder / "a.md").write_text(TEXTS[0])
    counts(tiny_bundle, folder, place)
    (folder / "a.md").unlink()
    (folder / "a.png").write_text("")
    with pytest.raises(TextsError, match="docs: no document in it"):
        counts(tiny_bundle, folder, place, force=True)
    made = counts(tiny_bundle, folder, place)
    assert (made["documents"], made["encoded"], made["deleted"]) == (0, 0, 1)
    assert search_index(tiny_bundle, place, [TEXTS[0]], hybrid=True) == [[]]
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(TextsError, match="empty.txt: no document in it"):
        counts(tiny_bundle, tmp_path / "empty.txt", place)
    (folder / "b.md").write_text(TEXTS[1])
    assert counts(tiny_bundle, folder, place)["encoded"] == 1
    assert [hit.id for hit in search_index(tiny_bundle, place, [TEXTS[1]])[0]] == ["b.md#1"]


def test_an_id_of_another_input_with_another_text_is_refused(
    tiny_bundle: Path, tmp_path: Path, encoded: list[str]
) -> None:
    place, one, two = f"{tmp_path}/store", tmp_path / "n1.txt", tmp_path / "n2.txt"
    one.write_text(f"{TEXTS[0]}\n{TEXTS[1]}\n")
    two.write_text(f"{TEXTS[0]}\n{TEXTS[2]}\n")
    counts(tiny_bundle, one, place)
    known = dict(open_store(place).known())
    encoded.clear()
    with pytest.raises(TextsError, match=r'n2.txt: the id "2" is .* another input.*--columns id=NAME') as caught:
        counts(tiny_bundle, two, place)
    assert "\n" not in str(caught.value) and not encoded and dict(open_store(place).known()) == known
    one.rename(two)  # a file that moved
    moved = counts(tiny_bundle, two, place)
    assert (moved["updated"], moved["encoded"], moved["deleted"]) == (2, 0, 0)
    two.write_text(f"{TEXTS[3]}\n")  # and is now the truth about its documents
    assert counts(tiny_bundle, two, place)["deleted"] == 1
    long = write_rows(tmp_path / "long.jsonl", {"long": " ".join(TEXTS)})
    assert counts(tiny_bundle, long, place, passages=True)["passages"] > 1
    with pytest.raises(TextsError, match='the id "long" is'):  # whose passages have other ids
        counts(tiny_bundle, write_rows(tmp_path / "short.jsonl", {"long": TEXTS[4]}), place)
    assert counts(tiny_bundle, two, place, force=True)["encoded"] == 1


def test_files_become_passages_with_title_and_offset(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    long = "\n\n".join(TEXTS[:20])
    text = f"# Lost parcel\n\n{TEXTS[20]}\n\n## Tree\n\n{long}\n\n## Empty\n"
    (folder / "a.md").write_text(text)
    (folder / "word.txt").write_text("parcel " * 300)
    made = make_index(tiny_bundle, folder, output=tmp_path / "store")
    assert made.counts.documents == 2 and made.counts.passages > 6 and made.counts.cut == 0
    hits = search_index(tiny_bundle, tmp_path / "store", ["tree"], k=100)[0]
    mine = sorted((hit for hit in hits if hit.document == "a.md"), key=lambda hit: int(hit.metadata["offset"]))
    assert [hit.id for hit in mine] == [f"a.md#{n}" for n in range(1, len(mine) + 1)]
    joined = ""
    for hit in mine:
        body = hit.text.removeprefix("Lost parcel ")
        start = int(hit.metadata["offset"])
        assert (hit.metadata["title"], text[start : start + len(body)]) == ("Lost parcel", body)
        joined += " " + body
    assert joined.split() == text.removeprefix("# Lost parcel").split()
    assert mine[1].text.startswith("Lost parcel ## Tree")  # a heading begins a passage
    (folder / "a.md").write_text(text.replace("## Empty", "## Other"))
    again = make_index(tiny_bundle, folder, output=tmp_path / "store").counts
    assert (again.encoded, again.unchanged, again.deleted) == (1, made.counts.passages - 1, 0)


def test_dtype_and_pca_are_the_stores_own_afterwards(tiny_bundle: Path, tmp_path: Path) -> None:
    place, corpus = f"{tmp_path}/store", write_rows(tmp_path / "c.jsonl", {"a": TEXTS[0], "b": TEXTS[1], "c": TEXTS[2]})
    make_index(tiny_bundle, corpus, output=place, dtype="int8", pca_dims=8)
    write_rows(corpus, {"a": TEXTS[0], "b": TEXTS[1], "c": TEXTS[3]})
    made = make_index(tiny_bundle, corpus, output=place)
    assert (made.index.layout.dtype, made.index.layout.dims, made.counts.encoded) == ("int8", 8, 1)
    before = sorted(path.read_bytes() for path in Path(place).iterdir())
    for given, message in (({"dtype": "bit"}, "holds int8 .* asks for bit"), ({"pca_dims": 4}, "of 8 numbers")):
        with pytest.raises(BundleError, match=message):
            make_index(tiny_bundle, corpus, output=place, **given)
    with pytest.raises(InputError, match="postgresql keeps vectors as float16 or bit, not as int8"):
        make_index(tiny_bundle, corpus, output="postgresql://u:secret@h/d", dtype="int8")
    assert sorted(path.read_bytes() for path in Path(place).iterdir()) == before
    whole = make_index(tiny_bundle, corpus, output=place, force=True).index
    assert (whole.layout.dtype, whole.layout.dims) == ("float16", QueryEncoder.load(tiny_bundle).dim)


@pytest.mark.parametrize("kind", ["folder", "sqlite", "milvus"])
def test_a_store_of_another_space_stays_as_it_is_and_is_closed(
    tiny_bundle: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from edgeleaf.search.passages import Layout, Passage
    from edgeleaf.search.store import Change

    place = place_of(kind, tmp_path, request)
    space = replace(QueryEncoder.load(tiny_bundle).space, weights_sha256="0" * 64)
    store = store_of(place).new(place, Layout(space))
    store.write(Change([Passage("a", "b")], np.eye(1, space.dim, dtype=np.float16)))
    store.close()
    closed: list[object] = []
    real = type(store).close
    monkeypatch.setattr(type(store), "close", lambda self: closed.append(self) or real(self))
    corpus = write_rows(tmp_path / "c.jsonl", {"a": TEXTS[0]})
    with pytest.raises(BundleError, match=f"is a store of the space {space.id}, the bundle's is "):
        make_index(tiny_bundle, corpus, output=place)
    assert len(closed) == 1
    with pytest.raises(TextsError, match="no such file"):
        make_index(tiny_bundle, tmp_path / "none.jsonl", output=place, force=True)
    store = open_store(place)
    assert len(store) == 1
    store.close()


def edgeleaf(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeleaf.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, env=os.environ.copy(), check=False)


@pytest.mark.slow
def test_the_command_line_from_standard_input_to_a_hybrid_search(
    tiny_bundle: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = place_of("sqlite", tmp_path, request)
    rows = "".join(
        json.dumps({"id": f"d{n}", "text": f"{text} E-{n}", "lang": "en" if n % 2 else "de"}) + "\n"
        for n, text in enumerate(TEXTS[:8])
    )
    done = edgeleaf("index", tiny_bundle, "-", "-o", place, "--json", stdin=rows)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert list(said)[-8:-1] == ["documents", "passages", "encoded", "updated", "unchanged", "deleted", "cut"]
    assert (said["documents"], said["encoded"], said["dtype"]) == (8, 8, "float16")
    done = edgeleaf(
        "search", tiny_bundle, place, "where is E-5", "--where", "lang = 'en'", "--hybrid", "--json", "-k", 3
    )
    hits = json.loads(done.stdout)["hits"]
    assert {"vector_score", "words_score"} <= hits[0].keys() and all(hit["metadata"] == {"lang": "en"} for hit in hits)
    assert max(hits, key=lambda hit: hit["words_score"] or 0)["id"] == "d5"
    shown = edgeleaf("search", tiny_bundle, place, "where is E-5", "--hybrid").stdout
    assert "vector " in shown and "words " in shown
    plain = json.loads(edgeleaf("search", tiny_bundle, place, TEXTS[3], "--json").stdout)["hits"][0]
    assert plain.keys() == {"id", "score", "text", "metadata"}
    for arguments, message in (
        (
            ("search", tiny_bundle, place, "x", "--where", "lnag = 'en'"),
            'the column "lnag"; the store\'s documents have',
        ),
        (("search", tiny_bundle, place, "x", "--where", "lang ="), "not a filter at its end"),
        (("search", tiny_bundle, f"{place}2", "x"), "no store there; make one with: edgeleaf index"),
        (("search", tiny_bundle, "redis://u:secret@h", "x"), "redis://u:***@h: no store of the kind 'redis'"),
        (("index", tiny_bundle, "-", "-o", place, "--dtype", "int8"), "holds float16 vectors, --dtype asks for int8"),
        (("index", tiny_bundle, "-", "-o", place, "--dtype", "int4"), "float16"),
    ):
        done = edgeleaf(*arguments, stdin=rows)
        assert (done.returncode, message in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
        assert "secret" not in done.stderr
