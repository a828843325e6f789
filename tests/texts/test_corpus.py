"""Texts from files, datasets and the machine: parsing, exact errors, and what a corpus promises."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeleaf.errors import MissingExtra, TextsError
from edgeleaf.recipe.sources import KINDS, DatasetSource, FilesSource, Kind, MachineSource, Pieces, Source
from edgeleaf.texts import documentation as machine
from edgeleaf.texts import pools, readers
from edgeleaf.texts.corpus import collect, read_texts, write_corpus
from edgeleaf.texts.documentation import documentation_texts
from edgeleaf.texts.hub import pinned
from edgeleaf.texts.readers import fingerprint, numbered_lines
from edgeleaf.texts.stored import TextFile
from edgeleaf.texts.text import Corpus, Text, same


def all_texts(folder: Path, *files: str, column: str | int | None = None, pieces: Pieces = "whole") -> set[str]:
    source = FilesSource(files, "query", column=column, pieces=pieces)
    corpus = collect([source], limit=1000, held_out_queries=0, held_out_documents=0, seed=0, base=folder)
    return {text.text for text in corpus.train}


def sample(sources: list[Source], base: Path, *, limit: int = 1000, queries: int = 0, documents: int = 0) -> Corpus:
    return collect(sources, limit=limit, held_out_queries=queries, held_out_documents=documents, seed=7, base=base)


def normalised(text: Text) -> str:
    return " ".join(text.text.casefold().split())


# Files


def test_txt_trims_drops_empty_lines_and_repeats(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeff  first line \r\n\r\n \nTwo\twords\nFIRST  line\nzwölf Äpfel\n".encode())
    assert all_texts(tmp_path, "a.txt") == {"first line", "Two\twords", "zwölf Äpfel"}


def test_tsv_columns(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\ttitle\tbody\n1\tone\tfirst\n\n2\ttwo\tsecond\n")
    assert all_texts(tmp_path, "a.tsv") == {"body", "first", "second"}
    assert all_texts(tmp_path, "a.tsv", column="title") == {"one", "two"}
    assert all_texts(tmp_path, "a.tsv", column=0) == {"id", "1", "2"}
    with pytest.raises(TextsError, match=r"a\.tsv has no column 'text': its first line names id, title, body"):
        all_texts(tmp_path, "a.tsv", column="text")
    with pytest.raises(TextsError, match=r"a\.tsv, line 1: needed column 3 \(from 0\), found 3 columns"):
        all_texts(tmp_path, "a.tsv", column=3)


def test_jsonl_keys_and_beir_titles(tmp_path: Path) -> None:
    rows = [{"_id": "1", "title": "Ice ", "text": "is cold"}, {"text": "no title"}, {"title": "", "text": "empty"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert all_texts(tmp_path, "corpus.jsonl") == {"Ice is cold", "no title", "empty"}
    assert all_texts(tmp_path, "corpus.jsonl", column="text") == {"is cold", "no title", "empty"}
    with pytest.raises(TextsError, match=r"corpus\.jsonl, line 2: needed a string under '_id', found keys: text"):
        all_texts(tmp_path, "corpus.jsonl", column="_id")
    with pytest.raises(TextsError, match="a key, not the number 1"):
        all_texts(tmp_path, "corpus.jsonl", column=1)


def test_pieces_of_documents(tmp_path: Path) -> None:
    rows = [
        {
            "title": "Enzymes",
            "text": "Rubisco folds with help, e.g. GroEL. It binds carbon dioxide in leaves. No.",
        },
        {"title": "", "text": "Nothing here has a title at all"},
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert all_texts(tmp_path, "corpus.jsonl", pieces="sentences") == {
        "Enzymes",
        "Rubisco folds with help, e.g. GroEL.",
        "It binds carbon dioxide in leaves.",
        "No.",
        "Nothing here has a title at all",
    }
    whole = " ".join(row["text"] for row in rows)
    spans = all_texts(tmp_path, "corpus.jsonl", pieces="spans")
    assert len(spans) == 3  # of the three sentences with enough words
    assert all(span in whole and 1 <= len(span.split()) <= 9 and span[-1].isalpha() for span in spans)
    assert spans == all_texts(tmp_path, "corpus.jsonl", pieces="spans")


def test_windows_need_no_marks_and_are_many(tmp_path: Path) -> None:
    document = " ".join(f"w{n}" for n in range(200))
    (tmp_path / "a.txt").write_text(f"{document}\ntoo short here\n")
    windows = all_texts(tmp_path, "a.txt", pieces="windows")
    assert windows == all_texts(tmp_path, "a.txt", pieces="windows")
    assert len(windows) > 90  # of 104 draws
    assert all(window in document and 3 <= len(window.split()) <= 20 for window in windows)
    counts = [sum(f"w{n} " in f"{window} " for window in windows) for n in range(20, 180)]
    assert 4 < sum(counts) / len(counts) < 8


def test_a_short_log_is_mostly_learnt(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("\n".join(f"real query {n}" for n in range(100)))
    (tmp_path / "corpus.txt").write_text("\n".join(f"a run of words {n}" for n in range(2000)))
    sources = [FilesSource((name,), "query") for name in ("log.txt", "corpus.txt")]
    corpus = collect(sources, limit=500, held_out_queries=200, held_out_documents=0, seed=0, base=tmp_path)
    held = sum(text.text.startswith("real") for text in corpus.held_out)
    assert len(corpus.held_out) == 200 and held <= 20
    assert sum(text.text.startswith("real") for text in corpus.train) == 100 - held
    alone = collect(sources[:1], limit=40, held_out_queries=60, held_out_documents=0, seed=0, base=tmp_path)
    assert len(alone.held_out) == 60  # where nobody else can give them


@pytest.mark.parametrize("name", ["a.txt.gz", "a.tsv.gz", "a.jsonl.gz"])
def test_gzip(name: str, tmp_path: Path) -> None:
    line = '{"text": "packed text"}' if "jsonl" in name else "packed text"
    (tmp_path / name).write_bytes(gzip.compress(line.encode()))
    assert all_texts(tmp_path, name) == {"packed text"}


def test_a_cut_gzip_names_file_and_line(tmp_path: Path) -> None:
    lines = "\n".join(f"line number {n * 7919}" for n in range(20000)).encode()
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(lines)[:-20000])
    with pytest.raises(TextsError, match=r"a\.txt\.gz, after line \d{3,}: cannot read it: Compressed file ended"):
        all_texts(tmp_path, "a.txt.gz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\nbad \xff byte\n", r"a\.txt, line 2: not UTF-8 \(invalid start byte\)"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', r"a\.jsonl, line 3: not JSON"),
        ("a.jsonl", b'["text"]\n', r"a\.jsonl, line 1: needed a JSON object, found list"),
        ("a.jsonl", b'{"text": null}\n', r"a\.jsonl, line 1: needed a string under 'text'"),
        ("a.csv", b"a,b\n", r"cannot read texts from \.csv files: use \.txt, \.tsv, \.jsonl"),
        ("a.txt.gz", b"not gzip", r"a\.txt\.gz: cannot read it: Not a gzipped file"),
    ],
)
def test_bad_files_name_file_and_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextsError, match=message) as caught:
        all_texts(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_globs_variables_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, text in (("b.txt", "b"), ("a.txt", "a"), ("deep/er/c.txt", "c"), ("odd[1].txt", "odd")):
        (tmp_path / name).write_text(f"text {text}")
    monkeypatch.setenv("MY_TEXTS", str(tmp_path / "deep"))
    monkeypatch.setenv("HOME", str(tmp_path / "deep"))
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    assert all_texts(tmp_path, "?.txt", "a.txt") == {"text a", "text b"}
    assert all_texts(tmp_path, "**/*.txt") == {"text a", "text b", "text c", "text odd"}
    assert all_texts(tmp_path, "odd[1].txt") == {"text odd"}
    assert all_texts(Path("/"), "${MY_TEXTS}/er/c.txt") == all_texts(Path("/"), "~/er/*.txt") == {"text c"}
    with pytest.raises(TextsError, match=r"NO_SUCH_FOLDER, which is not set: set it to a folder with \*\.txt"):
        all_texts(tmp_path, "${NO_SUCH_FOLDER}/*.txt")
    with pytest.raises(TextsError, match=r"no file matches '\*\.tsv' \(looked for .*\): check the path"):
        all_texts(tmp_path, "a.txt", "*.tsv")
    with pytest.raises(TextsError, match=r"a \.txt file has no columns: leave out column 'text'"):
        all_texts(tmp_path, "a.txt", column="text")


def test_folders_names_are_no_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's folder, a variable's value and the home folder are taken literally, with any characters."""
    base = tmp_path / "réçipe [1] a*b?"
    (base / "sub").mkdir(parents=True)
    (base / "sub" / "a.txt").write_text("text a")
    (tmp_path / "réçipe 1 aXbY").mkdir()  # what the name would match
    monkeypatch.setenv("MY_TEXTS", str(base))
    monkeypatch.setenv("HOME", str(base))
    assert all_texts(base, "**/*.txt") == all_texts(base, "sub/a.txt") == {"text a"}
    assert all_texts(tmp_path, "${MY_TEXTS}/sub/?.txt") == all_texts(tmp_path, "~/*/[a-b].txt") == {"text a"}
    with pytest.raises(TextsError, match=r"'nul\\x00l\*' cannot be searched for|no file matches") as caught:
        all_texts(base, "nul\0l*")
    assert "\n" not in str(caught.value)


def lines_of(path: Path) -> list[str]:
    return [line for _, line in numbered_lines(path)]


def test_a_line_ends_at_a_line_feed_with_one_carriage_return_and_nowhere_else(tmp_path: Path) -> None:
    odd = ["a\u2028b", "c\x85d", "e\x0bf\x0cg\x1ch", "i\rj", "k\r", "", " l "]
    (tmp_path / "a.txt").write_bytes("".join(line + "\r\n" for line in odd).encode())
    assert lines_of(tmp_path / "a.txt") == odd
    (tmp_path / "b.txt").write_bytes("\ufeffa\n\ufeffb".encode())  # a mark is one at the start only
    assert lines_of(tmp_path / "b.txt") == ["a", "\ufeffb"]
    (tmp_path / "empty.txt").write_bytes(b"")
    assert lines_of(tmp_path / "empty.txt") == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("several words\nin two lines\n".encode(encoding))
    name = encoding.upper()[:6]
    with pytest.raises(TextsError, match=rf"a\.txt, line 1: not UTF-8 \(it looks like {name}\): convert the file"):
        lines_of(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a", "n": NaN}', "line 1: not JSON (NaN is not a value in JSON)"),
        ('{"text": -Infinity}', "line 1: not JSON (-Infinity is not a value in JSON)"),
        ("[" * 100_000, "line 1: not JSON ("),
        ('{"text": ' + "9" * 5000 + "}", "line 1: not JSON ("),
        ('{"text": ["a"]}', "line 1: needed a string under 'text', found keys: text"),
        ('{"text": {"a": 1}}', "line 1: needed a string under 'text', found keys: text"),
        ('"text"', "line 1: needed a JSON object, found str"),
    ],
)
def test_odd_json_is_one_line(row: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(row)
    with pytest.raises(TextsError) as caught:
        all_texts(tmp_path, "a.jsonl")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud83d b"}\n{"text": "\\ud83d\\ude00"}\n')
    assert all_texts(tmp_path, "a.jsonl") == {"a? b", "😀"}


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LINE_BYTES", 1 << 20)
    (tmp_path / "a.txt").write_bytes(b"short\n" + b"x" * (1 << 20) + b"\n")
    with pytest.raises(TextsError, match=r"a\.txt, line 2: longer than 1 MiB: write one text per line"):
        all_texts(tmp_path, "a.txt")
    with gzip.open(tmp_path / "bomb.txt.gz", "wb") as file:
        for _ in range(50):
            file.write(bytes(b"x" * (1 << 20)))
    with pytest.raises(TextsError, match=r"bomb\.txt\.gz, line 1: longer than 1 MiB"):
        all_texts(tmp_path, "bomb.txt.gz")
    (tmp_path / "b.txt").write_bytes(b"y" * ((1 << 20) - 1) + b"\n")
    assert [len(text) for text in all_texts(tmp_path, "b.txt")] == [2000]


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n" * 50_000)
    with pytest.raises(TextsError, match=r"a\.txt: was changed while it was read: run again"):
        for number, _ in numbered_lines(path):
            if number == 10:
                with path.open("a") as file:
                    file.write("three\n")


# Datasets


def test_a_dataset_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    def answer(*_: object, **__: object) -> None:
        raise requests.ConnectionError("no\nroute")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", answer)
    with pytest.raises(
        TextsError, match=r"^dataset 'some/where' cannot be streamed .*\(ConnectionError\).*$"
    ) as caught:
        sample([DatasetSource("some/where", "query", "text")], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("x"), "cannot be streamed from the hub (ConnectionError): check the network"),
        (TimeoutError("x"), "cannot be streamed from the hub (TimeoutError): check the network"),
        (OSError(28, "No space left on device"), "cannot be read (OSError: [Errno 28] No space left on device): check"),
    ],
)
def test_the_network_is_blamed_for_its_own_faults_only(
    error: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    with pytest.raises(TextsError) as caught:
        sample([DatasetSource("some/where", "query", "text")], tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("error", [TypeError("ours"), AttributeError("ours"), KeyError("ours"), ZeroDivisionError()])
def test_faults_of_the_program_come_through(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(type(error)):
        sample([DatasetSource("some/where", "query", "text")], tmp_path)


def test_a_data_sets_revision_is_what_the_hub_says_or_said_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.hf_api import DatasetInfo

    asked: list[object] = []

    def info(_: object, name: str, *, timeout: float, revision: str | None = None) -> DatasetInfo:
        asked.append(revision)
        return DatasetInfo(id=name, sha="abc" if revision is None else "def", private=False)

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError

    sources = [DatasetSource("a/b", "query", "q"), DatasetSource("a/b", "query", "q", revision="v2"), MachineSource()]
    remembered = tmp_path / "revisions.json"
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    assert pinned(sources, remembered) == tuple(sources) and not remembered.exists()
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", info)
    found = pinned(sources, remembered)
    assert [getattr(source, "revision", "") for source in found] == ["abc", "def", ""] and asked == [None, "v2"]
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    assert pinned(sources, remembered) == found


def endless_questions() -> Iterator[dict[str, object]]:
    yield from ({"query": f"question {n}", "n": n} for n in itertools.count())


def test_a_dataset_streams_one_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, config: str | None, *, split: str, streaming: bool) -> datasets.IterableDataset:
        assert (name, config, split, streaming) == ("some/where", "en", "dev", True)
        return datasets.IterableDataset.from_generator(endless_questions)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    monkeypatch.setattr("datasets.load_dataset", load)
    corpus = sample([DatasetSource("some/where", "query", "query", "en", "dev")], tmp_path, limit=10, queries=5)
    assert len(corpus.train) == 10 and len(corpus.held_out) == 5
    with pytest.raises(TextsError, match="column 'text' must hold strings; the columns are query, n"):
        sample([DatasetSource("some/where", "query", "text", "en", "dev")], tmp_path)


def test_without_the_datasets_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgeleaf\[distill\]'"):
        sample([DatasetSource("some/where", "query", "text")], tmp_path)


# Corpora


def write_lines(path: Path, prefix: str, count: int) -> None:
    path.write_text("".join(f"{prefix} {n}\n" for n in range(count)))


def test_weights_share_the_limit_and_dry_sources_are_made_up_for(tmp_path: Path) -> None:
    for prefix, count in (("a", 500), ("b", 500), ("c", 10)):
        write_lines(tmp_path / f"{prefix}.txt", prefix, count)
    weights = {"a": 3.0, "b": 1.0, "c": 4.0}
    sources: list[Source] = [FilesSource((f"{p}.txt",), "query", weight=w) for p, w in weights.items()]
    train = sample(sources, tmp_path, limit=130).train
    counts = {p: sum(text.text.startswith(p) for text in train) for p in weights}
    assert counts == {"a": 90, "b": 30, "c": 10}
    assert len(sample(sources, tmp_path, limit=5000).train) == 1010


def test_training_texts_of_all_sources_are_mixed(tmp_path: Path) -> None:
    write_lines(tmp_path / "large.txt", "large", 20000)
    write_lines(tmp_path / "small.txt", "small", 100)
    sources: list[Source] = [FilesSource((f"{name}.txt",), "query") for name in ("large", "small")]
    train = sample(sources, tmp_path, limit=200).train
    in_first_half = sum(text.text.startswith("small") for text in train[:100])
    assert 30 <= in_first_half <= 70


def test_held_out_texts_keep_away_from_training_when_texts_are_added(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.txt", "text", 2000)
    source = FilesSource(("a.txt",), "query")
    before = sample([source], tmp_path, limit=1000, queries=100)
    write_lines(tmp_path / "a.txt", "text", 3000)
    after = sample([source], tmp_path, limit=1000, queries=100)
    assert not set(before.held_out) & set(after.train) and not set(after.held_out) & set(before.train)
    assert len(set(before.held_out) & set(after.held_out)) > 50


def test_a_text_of_both_kinds_is_in_one_set_only(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.txt", "Same Text", 60)
    write_lines(tmp_path / "b.txt", "same  text", 60)
    sources: list[Source] = [FilesSource(("a.txt",), "query"), FilesSource(("b.txt",), "document")]
    corpus = sample(sources, tmp_path, queries=10)
    assert len(corpus.train) == 50 and len(corpus.held_out) == 10
    assert {text.kind for text in corpus.train + corpus.held_out} == {"query"}


def test_too_few_texts_and_missing_kinds(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.txt", "text", 20)
    source = FilesSource(("a.txt",), "query")
    with pytest.raises(TextsError, match="found 20 distinct texts of kind 'query', needed 30 to hold out and some"):
        sample([source], tmp_path, queries=30)
    with pytest.raises(TextsError, match="all 20 distinct texts are held out and none is left to train on"):
        sample([source], tmp_path, queries=20)
    with pytest.raises(TextsError, match=r"add a source of kind 'document', or set held_out_documents = 0"):
        sample([source], tmp_path, queries=5, documents=5)
    with pytest.raises(TextsError, match="give a source, a limit of at least 1"):
        sample([], tmp_path)


def test_long_texts_are_cut_at_a_space(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three\n" + "x" * 30 + "\nfits here\n")
    source = FilesSource(("a.txt",), "query")
    corpus = collect([source], limit=9, held_out_queries=0, held_out_documents=0, seed=0, base=tmp_path, max_chars=10)
    assert {text.text for text in corpus.train} == {"one two", "x" * 10, "fits here"}


def test_corpus_round_trip_and_damaged_lines(tmp_path: Path) -> None:
    odd = [Text('quote " and \u2028 separator', "query"), Text("line\nbreak \x85 🍃", "document")]
    corpus = Corpus(train=odd, held_out=odd[:1])
    write_corpus(corpus, tmp_path / "texts")
    assert read_texts(tmp_path / "texts" / "train.jsonl") == odd
    assert read_texts(tmp_path / "texts" / "held_out.jsonl") == odd[:1]
    assert sorted(path.name for path in (tmp_path / "texts").iterdir()) == ["held_out.jsonl", "train.jsonl"]
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "kind": "query"}\n{"text": "a", "kind": "other"}\n')
    with pytest.raises(TextsError, match=r"bad\.jsonl, line 2: expected"):
        read_texts(tmp_path / "bad.jsonl")
    with pytest.raises(TextsError, match=r"absent\.jsonl: no such file"):
        read_texts(tmp_path / "absent.jsonl")


# No carriage returns or line feeds: a line is a text. Surrogates cannot be written as UTF-8.
line_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    queries=st.lists(line_texts, max_size=40),
    documents=st.lists(line_texts, max_size=40),
    held=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    limit=st.integers(1, 50),
    seed=st.integers(0, 2**32),
)
def test_what_every_corpus_promises(
    tmp_path: Path, queries: list[str], documents: list[str], held: tuple[int, int], limit: int, seed: int
) -> None:
    (tmp_path / "q.txt").write_bytes("\n".join(queries).encode())
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in documents))

    def corpus() -> Corpus:
        return collect(
            [FilesSource(("q.txt",), "query"), FilesSource(("d.jsonl",), "document", weight=2.0)],
            limit=limit,
            held_out_queries=held[0],
            held_out_documents=held[1],
            seed=seed,
            base=tmp_path,
        )

    distinct = {" ".join(text.removeprefix("\ufeff").casefold().split()) for text in queries + documents} - {""}
    try:
        once = corpus()
    except TextsError as error:
        assert "add" in str(error) and len(distinct) < 80
        return
    assert once == corpus()
    assert [text.kind for text in once.held_out] == ["query"] * held[0] + ["document"] * held[1]
    keys = [normalised(text) for text in once.train + once.held_out]
    assert len(set(keys)) == len(keys) and "" not in keys
    assert all(text.text == text.text.strip() for text in once.train + once.held_out)
    assert abs(len(once.train) - min(limit, len(distinct) - sum(held))) <= 1  # a byte order mark can make two of one


# The machine's own documentation


@pytest.fixture(scope="module")
def found() -> list[Text]:
    return list(documentation_texts(queries=1500, documents=1500))


def test_machine_texts_are_enough_distinct_and_deterministic(found: list[Text]) -> None:
    for kind in ("query", "document"):
        assert sum(text.kind == kind for text in found) >= 1500
    assert len({text.text.casefold() for text in found}) == len(found)
    assert list(itertools.islice(documentation_texts(queries=1500, documents=1500), 300)) == found[:300]


def test_machine_texts_look_like_searches_and_passages(found: list[Text]) -> None:
    queries = [text.text for text in found if text.kind == "query"]
    passages = [text.text for text in found if text.kind == "document"]
    assert all(2 <= len(text.split()) <= 14 for text in queries)
    assert all(20 <= len(text.split()) <= 100 for text in passages)
    assert all(text[0].isalpha() and text.endswith((".", "!", "?")) for text in passages)
    starts = [sum(text.startswith(start) for text in queries) for start in ("how to ", "how do i ", "How do I ")]
    assert all(count > len(queries) / 50 for count in starts) and sum(starts) < len(queries) / 2
    for sign in (">>>", ":class:", "``", "http:", "Parameters", "Copyright", "deprecated"):
        assert not [text for text in queries + passages if sign in text]


def by_definition(files: dict[str, Kind], base: Path, *, limit: int, held: int, seed: int) -> list[list[Text]]:
    """Do what :func:`collect` promises in the simplest way: sets in memory, sources of equal weight."""
    key = seed.to_bytes(16, "big", signed=True)
    pools, seen = [], set()
    for name, kind in files.items():
        found: dict[int, Text] = {}
        for line in (base / name).read_text(encoding="utf-8").split("\n"):
            if line.strip():
                digest = hashlib.blake2b(same(line.strip()).encode(), digest_size=12, key=key).digest()
                found.setdefault(int.from_bytes(digest, "big"), Text(line.strip(), kind))
        pools.append({number: text for number, text in found.items() if number not in seen})
        seen |= set(found)
    held_out = []
    for kind in KINDS:
        of_kind = [pool for pool in pools if next(iter(pool.values())).kind == kind]
        taken = []
        for pool in of_kind:
            for number in sorted(pool)[: held // len(of_kind)]:
                taken.append((number % 2**48, pool.pop(number)))
        held_out += [text for _, text in sorted(taken, key=lambda pair: pair[0])]
    train = []
    for pool in pools:
        train += [(number % 2**48, pool[number]) for number in sorted(pool, reverse=True)[: limit // len(pools)]]
    return [[text for _, text in sorted(train, key=lambda pair: pair[0])], held_out]


@pytest.mark.parametrize("pending", [7, 100, 65_536])
def test_texts_that_wait_on_disk_are_the_same_as_in_memory(
    pending: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "PENDING", pending)
    for name, first in (("q.txt", 0), ("p.txt", 900), ("d.txt", 1500)):  # the second repeats some of the first
        lines = [f"Ein  Text {n % 1100 + first}: ä{chr(0x1F600 + n % 50)}" for n in range(3000)]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    files: dict[str, Kind] = {"q.txt": "query", "p.txt": "query", "d.txt": "document"}
    sources = [FilesSource((name,), kind) for name, kind in files.items()]
    found = collect(
        sources, limit=300, held_out_queries=40, held_out_documents=40, seed=3, base=tmp_path, scratch=tmp_path
    )
    assert [found.train, found.held_out] == by_definition(files, tmp_path, limit=300, held=40, seed=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.txt", "p.txt", "q.txt"]


def test_a_corpus_on_disk_is_read_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [Text(f"text {n} ä\u2028\n", KINDS[n % 2]) for n in range(1000)]
    write_corpus(Corpus(train=texts, held_out=[]), tmp_path)
    monkeypatch.setattr("edgeleaf.texts.stored._READ", 7)
    monkeypatch.setattr("edgeleaf.texts.stored._SCANNED", 100)
    stored = TextFile(tmp_path / "train.jsonl")
    assert list(stored) == texts and len(stored) == 1000 and stored == texts and stored != texts[1:]
    assert stored[3] == texts[3] and stored[-1] == texts[-1]
    assert stored[5:9] == texts[5:9] and stored[::-300] == texts[::-300] and stored[2000:] == stored[9:5] == []
    assert pickle.loads(pickle.dumps(stored)) == stored
    with pytest.raises(IndexError):
        stored[1000]
    assert list(TextFile(tmp_path / "held_out.jsonl")) == []
    with (tmp_path / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": "\\ud800", "kind": "query"}\n{"text": "x", "kind": "other"}')
    damaged = TextFile(tmp_path / "train.jsonl")
    assert damaged[:1000] == texts and len(damaged) == 1002
    with pytest.raises(TextsError, match=r"train\.jsonl, line 1001: half a surrogate pair is not text"):
        damaged[1000]
    with pytest.raises(TextsError, match=r'train\.jsonl, line 1002: expected \{"text": …, "kind"'):
        list(damaged[1001:])


def test_documentation_is_known_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "package.py"
    path.write_text('"""Doc."""')
    monkeypatch.setattr(machine, "_files", lambda: iter([("package", path)]))
    before = fingerprint([MachineSource()], tmp_path)
    assert fingerprint([MachineSource()], tmp_path) == before
    path.write_text('"""Dog."""')
    assert fingerprint([MachineSource()], tmp_path) != before


def test_machine_texts_of_a_docstring() -> None:
    doc = """Return the number of leap years in a range.

    The proleptic Gregorian calendar, as in :mod:`calendar`, is **extended** backwards, so that years before
    1582 count as if the reform had come earlier [1]_.

    >>> leap_years(1900, 2000)
    24

    .. versionadded:: 3.1

    Parameters
    ----------
    first : int
        The first year of the range, which may be zero or negative; astronomers count that way, and the year zero
        is what historians call the first year before Christ.
    last : int
        The end.

    Returns
    -------
    int
        The number of leap years that the range holds, and this description is never used as a passage of text.
    """
    texts = list(machine._texts_of("calendar", "leap_years", doc))
    assert [text.text for text in texts if text.kind == "document"] == [
        "Return the number of leap years in a range. The proleptic Gregorian calendar, as in calendar, is extended "
        "backwards, so that years before 1582 count as if the reform had come earlier.",
        "The first year of the range, which may be zero or negative; astronomers count that way, and the year zero "
        "is what historians call the first year before Christ.",
    ]
    queries = [text.text.lower() for text in texts if text.kind == "query"]
    assert queries and all("leap" in query and "return" not in query for query in queries)


def test_collect_from_the_machine_is_half_and_half(tmp_path: Path) -> None:
    corpus = sample([MachineSource()], tmp_path, limit=1000, queries=50, documents=50)
    assert sum(text.kind == "query" for text in corpus.train) == 500
    assert len(corpus.train) == 1000 and len(corpus.held_out) == 100
    assert not {normalised(t) for t in corpus.train} & {normalised(t) for t in corpus.held_out}


def test_the_machine_fills_what_files_lack(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.txt", "text", 100)
    corpus = sample([MachineSource(), FilesSource(("a.txt",), "query")], tmp_path, limit=600)
    assert len(corpus.train) == 600
    assert sum(text.text.startswith("text ") for text in corpus.train) == 100


def test_files_that_are_named_as_both_kinds_are_halved(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"text {n}" for n in range(400)) + "\n")
    sources = [FilesSource(("a.txt",), "query"), FilesSource(("a.txt",), "document", weight=2.0)]
    corpus = collect(sources, limit=400, held_out_queries=20, held_out_documents=30, seed=0, base=tmp_path)
    kinds = [text.kind for text in [*corpus.train, *corpus.held_out]]
    assert len(kinds) == len({text.text for text in [*corpus.train, *corpus.held_out]}) == 400
    assert 150 < kinds.count("query") < 250
    assert [text.kind for text in corpus.held_out].count("query") == 20
    apart = [sources[0], FilesSource(("a.txt",), "document", pieces="sentences")]
    with pytest.raises(TextsError, match="found 0 distinct texts of kind 'document'"):
        collect(apart, limit=400, held_out_queries=20, held_out_documents=30, seed=0, base=tmp_path)
