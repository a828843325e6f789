"""edgeleaf.graph.tokenizers: ids and masks of the graph equal those of `tokenizers`, on every input."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.studies import tokenizer_parity, tokenizer_texts, tokenizer_vocabularies
from edgeleaf.bundle.feed import UTF8, Input
from edgeleaf.errors import ExportError, TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import append_tokenizer, as_model
from edgeleaf.graph.tokenizers.characters import code_points
from tests.graph.tokenizers.pairs import HARD, TRAINING, Json, Pair, trained

PROMPTS = (
    "query: ",
    "Represent this sentence for searching relevant passages: ",
    "un",
    "Hel",
    "ÉLECTRI",
    "日",
    "[SEP]",
    "a [SEP] un",
    " \t",
    "x\u200b\u0301",
    "\u0301\0",
    "한",
    "q" * 98,
)

VARIANTS = {
    "uncased": {},
    "cased": {"lowercase": False},
    "cased, accents stripped": {"lowercase": False, "strip_accents": True},
    "uncased, accents kept": {"lowercase": True, "strip_accents": False},
    "ideographs in words": {"handle_chinese_chars": False},
    "nothing cleaned": {"clean_text": False},
    "nothing at all": {
        "clean_text": False,
        "handle_chinese_chars": False,
        "strip_accents": False,
        "lowercase": False,
    },
}


@pytest.fixture(scope="session")
def real(minilm: Path) -> Json:
    tokenizer: Json = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    return tokenizer


@pytest.fixture(scope="session")
def pair(real: Json, takes: Input) -> Pair:
    return Pair(real, takes=takes)


@pytest.fixture(scope="session", params=VARIANTS)
def tiny(request: pytest.FixtureRequest, takes: Input) -> Pair:
    return Pair(trained(**VARIANTS[request.param]), takes=takes)


def test_hard_texts_alone_and_in_one_batch(pair: Pair) -> None:
    pair.check(HARD)
    for text in HARD:
        pair.check([text])


def test_hard_texts_with_every_variant(tiny: Pair) -> None:
    tiny.check(HARD)
    tiny.check([*TRAINING, *"".join(TRAINING), *(word for line in TRAINING for word in line.split())])


def test_hard_texts_are_not_all_unknown(pair: Pair, tiny: Pair) -> None:
    """Guards the tests above: they would pass for a tokenizer that finds nothing."""
    ids, _ = pair.run(["How many people live in Berlin?"])
    assert ids.tolist() == [[101, 2129, 2116, 2111, 2444, 1999, 4068, 1029, 102]]
    ids, mask = tiny.run(list(TRAINING))
    assert (ids[mask == 1] == 1).mean() < 0.5


EMPTY_PLANES = range(0x40000, 0xE0000)  # never assigned, so far


@pytest.mark.slow
def test_every_code_point_alone(pair: Pair) -> None:
    pair.check([character for character in code_points() if ord(character) not in EMPTY_PLANES])


@pytest.mark.slow
def test_every_code_point_inside_a_word(pair: Pair) -> None:
    pair.check([f"a{character}b" for character in code_points() if ord(character) not in EMPTY_PLANES])


@pytest.mark.slow
def test_every_code_point_of_the_empty_planes(pair: Pair) -> None:
    """Sixteen to a text, alone and in words: a wrong one shifts or changes an id."""
    for start in range(EMPTY_PLANES.start, EMPTY_PLANES.stop, 0x10000):
        texts = [map(chr, range(code, code + 16)) for code in range(start, start + 0x10000, 16)]
        pair.check([" ".join(f"{character} a{character}b" for character in text) for text in texts])


def test_every_code_point_with_every_variant(tiny: Pair) -> None:
    """Of the empty planes, every 97th."""
    characters = [character for character in code_points() if ord(character) < 0x40000 or ord(character) % 97 == 0]
    texts = [characters[i : i + 20] for i in range(0, len(characters), 20)]
    tiny.check([" ".join(f"{character} a{character}b" for character in text) for text in texts])


def test_one_text_in_every_position_of_a_batch(pair: Pair) -> None:
    text = "Zürich's [SEP] unaffordable 東京"
    alone, _ = pair.run([text])
    others = [HARD[i] for i in (0, 7, 11, 14, 22, 1, 30)]
    for position in range(len(others) + 1):
        batch = [*others[:position], text, *others[position:]]
        pair.check(batch)
        ids, mask = pair.run(batch)
        assert ids[position][mask[position] == 1].tolist() == alone[0].tolist()


def test_all_empty_batch(pair: Pair) -> None:
    for texts in ([""], ["", ""], [" ", "", "\0"]):
        ids, mask = pair.run(texts)
        assert ids.tolist() == [[101, 102]] * len(texts)
        assert mask.tolist() == [[1, 1]] * len(texts)


@pytest.mark.parametrize("max_length", [3, 4, 16, 512])
def test_truncation(real: Json, takes: Input, max_length: int) -> None:
    short = Pair(real, max_length=max_length, takes=takes)
    short.check(HARD)
    words = ["unaffordable", "parcels,", "everywhere!"]
    short.check([" ".join((words * 400)[:n]) for n in (0, 1, 2, 3, 5, 8, 13, 100, 300, 600)])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompt_and_text_are_one_string(real: Json, takes: Input, prompt: str) -> None:
    prompted = Pair(real, prompt=prompt, takes=takes)
    texts = ["", " ", "believable", "lo world", "cité", "\u0301e", "xx", "[SEP]", "語", "x" * 99, "a " * 200]
    prompted.check(texts)
    for text in texts:
        prompted.check([text])


def test_a_prompt_joins_the_word_that_follows(real: Json, takes: Input) -> None:
    ids, _ = Pair(real, prompt="un", takes=takes).run(["believable"])
    assert ids.tolist() == [[101, 23653, 102]]


@pytest.mark.parametrize("opset", [16, 17, 18, 20, 22])
def test_opsets(opset: int, takes: Input) -> None:
    if opset > 21 and version("onnxruntime").startswith("1.20."):
        pytest.skip("onnxruntime 1.20 knows opset 21 and older")
    Pair(trained(), opset=opset, takes=takes).check([*HARD, *TRAINING])


@pytest.mark.parametrize("limit", [1, 2, 7, 300])
def test_other_word_lengths(limit: int, takes: Input) -> None:
    texts = ["where is my parcel", *("a" * n for n in (*range(10), 299, 300, 301)), *TRAINING]
    Pair(trained(limit=limit), max_length=512, takes=takes).check(texts)


@pytest.mark.parametrize("prefix", ["", "@@", "a", "un"])
def test_other_prefixes(prefix: str, takes: Input) -> None:
    Pair(trained(prefix=prefix), takes=takes).check([*TRAINING, *HARD, "aaaa unun @@a", *" ".join(TRAINING).split()])


def test_long_entries() -> None:
    """Longer entries than are looked up at once."""
    tokenizer = trained()
    vocab = tokenizer["model"]["vocab"]
    for length in (9, 10, 18, 19, 27, 28, 60):
        vocab["w" * length] = len(vocab)
        vocab["##" + "w" * length] = len(vocab)
    vocab["##" + "w" * 7] = len(vocab)
    long = Pair(tokenizer)
    texts = ["w" * n for n in range(102)] + ["is" + "w" * n for n in range(99)]
    long.check(texts)
    assert (long.run(["w" * 60])[0] != 1).all()


PADDING = {
    "strategy": "BatchLongest",
    "direction": "Right",
    "pad_to_multiple_of": 8,
    "pad_id": 3,
    "pad_type_id": 4,
    "pad_token": "[SEP]",
}
SPECIAL = {name: {"id": name, "ids": ids, "tokens": [name] * len(ids)} for name, ids in (("A", [7, 8]), ("B", [9]))}
A, B = ({"SpecialToken": {"id": name, "type_id": kind}} for name, kind in (("A", 2), ("B", 1)))
TEXT, TEXT_1 = ({"Sequence": {"id": "A", "type_id": kind}} for kind in (0, 1))
TEMPLATES = ([TEXT], [TEXT, A], [A, TEXT], [A, B, TEXT_1, A, B], [B, B, TEXT, A, A, A])


@pytest.mark.slow
@pytest.mark.parametrize("side", ["Left", "Right"])
@pytest.mark.parametrize("template", TEMPLATES, ids=range(len(TEMPLATES)))
def test_templates_padding_and_sides_of_truncation(template: list[Json], side: str, takes: Input) -> None:
    settings = {
        "post_processor": {"type": "TemplateProcessing", "single": template, "pair": [], "special_tokens": SPECIAL},
        "truncation": {"direction": side, "max_length": 5, "strategy": "LongestFirst", "stride": 0},
        "padding": PADDING,
    }
    for prompt in ("", "where is un", "my, "):
        for max_length in (11, 12, 64):
            made = Pair(trained() | settings, max_length=max_length, prompt=prompt, token_type_ids=True, takes=takes)
            made.check([*TRAINING, "", "my", "is", "where is my parcel", "[SEP] my"])
            made.check(["my"])


def test_truncation_on_the_left_keeps_the_end(real: Json, takes: Input) -> None:
    left = real | {"truncation": {"direction": "Left", "max_length": 128, "strategy": "LongestFirst", "stride": 0}}
    ids, _ = Pair(left, max_length=4, takes=takes).run(["where is my parcel"])
    assert ids.tolist() == [[101, *Pair(real).run(["my parcel"])[0][0, 1:3], 102]]
    Pair(left, max_length=16, takes=takes).check(HARD)
    Pair(left, max_length=4, prompt="a prompt that is longer than the window: ", takes=takes).check(
        ["", "where is my parcel", *HARD]
    )


def test_no_template(takes: Input) -> None:
    bare = Pair(trained() | {"post_processor": None}, takes=takes)
    bare.check(["", *TRAINING])
    assert bare.run([""])[0].shape == (1, 0)


def test_no_normalizer(takes: Input) -> None:
    Pair(trained(lowercase=False) | {"normalizer": None}, takes=takes).check([*TRAINING, *HARD])


def test_same_bytes_twice(real: Json, takes: Input) -> None:
    one, other = (Pair(real, takes=takes).model.SerializeToString() for _ in range(2))
    assert one == other


def test_it_stays_small(pair: Pair, takes: Input) -> None:
    assert pair.model.ByteSize() < 1_000_000
    most = 85 if takes == UTF8 else 80  # a node costs 1 to 2 microseconds: docs/log/tokenizer.md
    assert len(pair.model.graph.node) <= most


PIECES = st.one_of(
    st.text(max_size=6),
    st.text(alphabet="abcdefgun ,.#'[]SEP-", max_size=12),
    st.text(alphabet="aeo\u0300\u0301\u0323\u0327\u0345\u302e\u1b44\u0f71\u0f72\u3099", max_size=8),
    st.text(alphabet="\0\t\n\r\x0b\x7f\x85\xa0\xad\u061c\u200b\u200d\u2028\u202e\ufeff\ufffd\ue000", max_size=6),
    st.text(alphabet=st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=4),
    st.text(alphabet=st.characters(categories=["Mn", "Mc", "Me", "Cf", "Lm", "Lt", "Zs", "Nl", "Sk"]), max_size=6),
    st.sampled_from(
        ["[SEP]", "[CLS]", "[PAD]", "[UNK]", "[MASK]", "[SEP", "SEP]", "[sep]", "##ing", "👩‍👩‍👧", "İ", "ΑΣ"]
    ),
    st.builds(lambda c, n: c * n, st.sampled_from(["a", "é", "e\u0301", "한", "x\u200b", "ing"]), st.integers(97, 103)),
    st.sampled_from(["where ", "is", "parcel", "un", "believ", "able", "tele", "communications", "東京", "Σίσυφος"]),
)
TEXTS = st.lists(st.lists(PIECES, max_size=8).map("".join), min_size=1, max_size=6)
PROPERTY = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@PROPERTY
@given(texts=TEXTS)
def test_any_batch_of_any_text(pair: Pair, texts: list[str]) -> None:
    assert pair.mismatches(texts) == []


@settings(PROPERTY, max_examples=150)
@given(texts=TEXTS)
def test_any_batch_of_any_text_with_every_variant(tiny: Pair, texts: list[str]) -> None:
    assert tiny.mismatches(texts) == []


def lines_of(path: Path) -> Iterator[str]:
    if path.suffix == ".json":
        yield from json.loads(path.read_text(encoding="utf-8"))
        return
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line) if ".jsonl" in path.name else line.rstrip("\n").partition("\t")[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["blns.json", "unicode-test-strings.jsonl.gz", "udhr.tsv.gz", "multilingual-questions.tsv.gz"]
)
def test_real_text_of_every_language(pair: Pair, data: Path, name: str) -> None:
    texts = list(lines_of(data / "unicode" / name))
    assert len(texts) > 500
    assert pair.mismatches(texts, batch=256) == []


def test_random_strings_of_adversarial_shape(pair: Pair) -> None:
    assert pair.mismatches(list(islice(tokenizer_texts.adversarial(), 3000)), batch=64) == []


def test_mpnets_tokenizer(mpnet: Path, takes: Input) -> None:
    """<s>, </s>, <pad> and <mask> are added tokens of the raw text, <unk> is one of the normalised text."""
    other = Pair(json.loads((mpnet / "tokenizer.json").read_text(encoding="utf-8")), takes=takes)
    texts = ["<UNK> a<unk>b <ünk>", "<s> </s><pad>x <mask>  y <MASK>", "< unk> <unk", "<unk><unk>"]
    other.check([*HARD, *TRAINING, *texts])
    assert other.mismatches(list(islice(tokenizer_texts.adversarial(), 1000)), batch=64) == []
    assert other.run(["<UNK>"])[0].tolist() == [[0, 3, 2]]


@pytest.mark.slow
def test_vocabularies_of_other_languages(data: Path) -> None:
    """Trained on real text; every 997th of `python -m bench.studies.tokenizer_parity`'s texts, all of the hard ones."""
    sets = tokenizer_texts.text_sets(data, 997, 1)
    trained_ones = {
        name: tokenizer_parity.mismatches(
            tokenizer, as_model(tokenizer, max_length=tokenizer_parity.MAX_LENGTH).SerializeToString(), sets
        )
        for name, tokenizer in tokenizer_vocabularies.wordpiece(data)
        if not name.startswith("all-")
    }
    assert len(trained_ones) == len(tokenizer_vocabularies.LANGUAGES)
    for found in trained_ones.values():
        assert sum(counts["texts"] for counts in found.values()) > 500
        assert [counts["examples"] for counts in found.values()] == [[]] * len(found)


Change = Callable[[Json], Json]
REFUSED: dict[str, tuple[Change, str]] = {
    "tokenizer model WordLevel is not supported: only WordPiece, BPE, Unigram": (
        lambda t: t | {"model": {"type": "WordLevel"}},
        "",
    ),
    "normalizer NFKC is not supported": (lambda t: t | {"normalizer": {"type": "NFKC"}}, ""),
    "pre_tokenizer Whitespace is not supported": (lambda t: t | {"pre_tokenizer": {"type": "Whitespace"}}, ""),
    "several post-processors are not supported": (
        lambda t: t | {"post_processor": {"type": "Sequence", "processors": [template_of(2, "A")] * 2}},
        "",
    ),
    "padding on the left": (lambda t: t | {"padding": PADDING | {"direction": "Left"}}, ""),
    "token id 2000000 is not supported": (lambda t: t | {"post_processor": template_of(2_000_000, "A")}, ""),
    "holds the second one ($B)": (lambda t: t | {"post_processor": template_of(7, "B")}, ""),
    "max_input_chars_per_word 0": (lambda t: t | {"model": t["model"] | {"max_input_chars_per_word": 0}}, ""),
    "unknown token '[OH]'": (lambda t: t | {"model": t["model"] | {"unk_token": "[OH]"}}, ""),
    "U+1B44 and U+302E": (lambda t: with_entries(t, "a\u302e", "##\u1b44"), ""),
    "the prompt ends in '[SE'": (lambda t: t, "query [SE"),
}


def template_of(prefix: int, sequence: str) -> Json:
    special = {"A": {"id": "A", "ids": [prefix], "tokens": ["A"]}}
    pieces = [{"SpecialToken": {"id": "A", "type_id": 0}}, {"Sequence": {"id": sequence, "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": special}


def with_entries(tokenizer: Json, *entries: str) -> Json:
    vocab = tokenizer["model"]["vocab"] | {entry: 1000 + i for i, entry in enumerate(entries)}
    return tokenizer | {"model": tokenizer["model"] | {"vocab": vocab}}


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_reproduced_is_refused_by_name(named: str) -> None:
    change, prompt = REFUSED[named]
    graph = GraphBuilder("tokenizer")
    with pytest.raises(TokenizerNotSupported) as error:
        append_tokenizer(graph, "text", change(trained()), max_length=16, prompt=prompt)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tokenizer", "max_length", "prompt", "message"),
    [
        ("{", 16, "", "not JSON"),
        ({}, 16, "", 'no "model"'),
        (trained() | {"post_processor": "x"}, 16, "", "tokenizers cannot load this"),
        (trained() | {"post_processor": {"type": "TemplateProcessing"}}, 16, "", "tokenizers cannot load this"),
        (trained() | {"added_tokens": [{"id": 1}]}, 16, "", "tokenizers cannot load this"),
        (trained() | {"padding": "x"}, 16, "", "tokenizers cannot load this"),
        (trained() | {"truncation": {"direction": "Left"}}, 16, "", "tokenizers cannot load this"),
        (trained() | {"normalizer": {"type": "BertNormalizer"}}, 16, "", "tokenizers cannot load this"),
        (None, 2, "", "leaves no room for text beside 2 special tokens; pass at least 3"),
        (None, 6, "where is my parcel ", "the prompt takes 4 of max_length 6 tokens"),
    ],
)
def test_misuse_costs_one_line(tokenizer: Any, max_length: int, prompt: str, message: str) -> None:
    tokenizer = trained() if tokenizer is None else tokenizer
    with pytest.raises(ExportError, match=message):
        append_tokenizer(GraphBuilder("tokenizer"), "text", tokenizer, max_length=max_length, prompt=prompt)
