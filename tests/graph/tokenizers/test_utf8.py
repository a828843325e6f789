"""The input ``utf8``: what a host may pass in, and what becomes of bytes that are no text."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeleaf.bundle.feed import FILLER, UTF8, utf8_rows
from edgeleaf.graph.tokenizers import utf8
from tests.graph.tokenizers.pairs import HARD, Json, Pair, trained, with_added
from tests.graph.tokenizers.trained import byte_level, unigram, with_bytes

WELL_FORMED = re.compile(
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    rb"|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
"""Table 3-7 of the Unicode Standard."""


def text_of(data: bytes) -> str:
    """What bytes stand for: U+FFFD for a lead byte that begins no character, nothing for others that are none."""
    text, at = "", 0
    while at < len(data):
        found = WELL_FORMED.match(data, at)
        if found:
            text += found[0].decode()
        elif data[at] != FILLER and not 0x80 <= data[at] < 0xC0:
            text += "\ufffd"
        at += len(found[0]) if found else 1
    return text


def rows_of(batch: list[bytes], width: int = 0) -> np.ndarray:
    rows = np.full((len(batch), max(width, *map(len, batch))), FILLER, np.uint8)
    for row, data in zip(rows, batch, strict=True):
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows


def ids(pair: Pair, rows: np.ndarray) -> list[list[int]]:
    found, mask = pair.session.run(list(pair.outputs), {UTF8: rows})
    return [row[kept == 1].tolist() for row, kept in zip(found, mask, strict=True)]


@pytest.fixture(scope="module", params=["whole", "in blocks", "not cleaned"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """With a token that is a single word, texts are read whole. Where they aren't cleaned, U+FFFD is part of a word."""
    kind = request.param
    token = {"content": "<ab>", "single_word": kind != "in blocks"}
    settings: Json = with_added(trained(clean_text=kind != "not cleaned"), token, "é東")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utf8, "LONG", 0)
        patch.setattr(utf8, "BLOCK", 3)
        made = Pair(settings, takes=UTF8)
    assert ("/block/" in str(made.model.graph)) == (kind == "in blocks")
    return made


def test_rows_of_texts() -> None:
    assert utf8_rows(["é", "abc", ""]).tolist() == [[195, 169, 255], [97, 98, 99], [255, 255, 255]]
    assert [utf8_rows(texts).shape for texts in ([], [""], ["", ""])] == [(0, 0), (1, 0), (2, 0)]
    with pytest.raises(UnicodeEncodeError):
        utf8_rows(["\ud83d"])


def test_the_file_says_what_it_takes(pair: Pair) -> None:
    assert [(entry.name, entry.type, entry.shape) for entry in pair.session.get_inputs()] == [
        ("utf8", "tensor(uint8)", ["batch", "bytes"])
    ]
    operators = {node.op_type for node in pair.model.graph.node}
    assert "Tokenizer" not in operators and {node.domain for node in pair.model.graph.node} == {"", "ai.onnx.ml"}


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (1, 0), (1, 9), (3, 0), (3, 5)])
def test_no_texts_and_empty_texts(pair: Pair, shape: tuple[int, int]) -> None:
    """A batch of none gets a row, which the fused file takes away."""
    found = ids(pair, np.full(shape, FILLER, np.uint8))
    assert found == [pair.reference.encode("").ids] * max(1, shape[0])


@pytest.mark.parametrize("prompt", ["", "query: ", "my parcel is my un"])
def test_no_texts_with_a_prompt(prompt: str) -> None:
    prompted = Pair(trained(), prompt=prompt, takes=UTF8)
    for batch in (0, 1, 2, 3, 5):
        expected = [prompted.reference.encode(prompt).ids] * max(1, batch)
        assert ids(prompted, np.full((batch, 2), FILLER, np.uint8)) == expected


def test_filler_does_not_count(pair: Pair) -> None:
    for text in HARD:
        if len(text) < 1000:
            data = text.encode()
            expected = [pair.reference.encode(text).ids]
            assert ids(pair, rows_of([data], len(data) + 9)) == expected
            assert ids(pair, rows_of([b"\xff" + data])) == expected


MALFORMED = {
    "continues nothing": b"my\x80 \xbfparcel \x80\x80\x80\x80",
    "cut off at the end": "my é".encode()[:-1],
    "cut off before a letter": b"\xe6\x9d is \xf0\x9f\x91 my \xe6",
    "one byte too many": "é".encode() + b"\x80 my",
    "too long a form": b"\xc0\x80my\xc1\xbf \xe0\x80\xafis\xe0\x9f\xbf \xf0\x80\x80\x80 \xf0\x8f\xbf\xbf",
    "surrogates": "my \ud83d\udc4d is \ud800".encode("utf-8", "surrogatepass"),
    "above U+10FFFF": b"\xf4\x90\x80\x80my \xf4\xbf\xbf\xbf \xf5\x80\x80\x80 \xf8\x88\x80\x80\x80 \xfe",
    "filler inside": b"my\xff par\xffcel \xe6\xff\x9d\xb1",
    "in an added token": b"<a\x80b> <a\xc3b> [S\xf0EP] \xc3\xa9\xe6\x9d<ab>\x80x",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_bytes_that_are_no_text(pair: Pair, kind: str) -> None:
    data = MALFORMED[kind]
    expected = [pair.reference.encode(text_of(part)).ids for part in (data, b"my", data + "é東".encode())]
    assert ids(pair, rows_of([data, b"my", data + "é東".encode()])) == expected
    assert ids(pair, rows_of([data])) == expected[:1]
    assert "\ufffd" in text_of(data) or kind in ("continues nothing", "one byte too many")


NASTY = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=4).map(str.encode),
    st.sampled_from([b"\xc3", b"\xe6\x9d", b"\xf0\x9f\x91", b"\xf4\x8f\xbf\xbf", b"\xed\xa0\x80", b"\xff", b"\xfe"]),
    st.sampled_from([b"my ", b"parcel", b"<ab>", b"[SEP]", "é東".encode(), b" "]),
)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(st.lists(NASTY, max_size=8).map(b"".join), min_size=1, max_size=5))
def test_any_bytes(pair: Pair, batch: list[bytes]) -> None:
    """Nothing fails, and no row sees what lies in the next one."""
    assert ids(pair, rows_of(batch)) == [pair.reference.encode(text_of(data)).ids for data in batch]


@pytest.mark.slow
def test_every_lead_byte_before_every_byte(pair: Pair) -> None:
    for lead in range(0x80, 0x100):
        batch = [b"a" + bytes([lead, second]) + tail for second in range(0x100) for tail in (b"\x80b", b"\xbf\x80b")]
        assert ids(pair, rows_of(batch)) == [pair.reference.encode(text_of(data)).ids for data in batch], lead


OTHERS: dict[str, Callable[[], Json]] = {
    "BPE": byte_level,
    "BPE, NFC": lambda: byte_level(regex="qwen", nfc=True),
    "SentencePiece's BPE": with_bytes,
    "Unigram": unigram,
    "Unigram, no map": lambda: unigram(charsmap=False, at_spaces=False),
}


@pytest.fixture(scope="module", params=OTHERS)
def other(request: pytest.FixtureRequest) -> Pair:
    return Pair(with_added(OTHERS[request.param](), "<ab>", "é東"), takes=UTF8)


def test_bytes_that_are_no_text_with_other_models(other: Pair) -> None:
    for data in MALFORMED.values():
        batch = [data, b"my", data + "é東".encode()]
        expected = [other.reference.encode(text_of(part)).ids for part in batch]
        assert ids(other, rows_of(batch)) == expected
        assert ids(other, rows_of([data])) == expected[:1]


def test_every_surrogate_is_replaced(other: Pair) -> None:
    """Alone, in words and in pairs; the characters on both sides of them stay what they are."""
    points = [0xD7FF, *range(0xD800, 0xE000, 7), 0xDBFF, 0xDC00, 0xDFFF, 0xE000]
    texts = [f"a{chr(point)}b {chr(point)}{chr(point)} é{chr(point)}" for point in points]
    batch = [text.encode("utf-8", "surrogatepass") for text in texts]
    assert ids(other, rows_of(batch)) == [other.reference.encode(text_of(data)).ids for data in batch]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(st.lists(NASTY, max_size=8).map(b"".join), min_size=1, max_size=5))
def test_any_bytes_with_other_models(other: Pair, batch: list[bytes]) -> None:
    assert ids(other, rows_of(batch)) == [other.reference.encode(text_of(data)).ids for data in batch]
