"""Each reader on a few hundred changed files; ``python -m tests.fuzz.run`` does the same for minutes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeleaf.records import RecordError, parse_json
from tests.fuzz.mutations import edited_bytes, edited_json
from tests.fuzz.readers import Reader, readers, refusal

TRIES = 25
NAMES = (
    "json", "space", "manifest", "certificate", "latency", "golden", "modules.json", "config.json",
    "sentence_bert_config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "recipe", "tokenizer",
)  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return {reader.name: reader for reader in readers(tmp_path_factory.mktemp("fuzz") / "work")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_is_read_or_refused_in_one_line(known: dict[str, Reader], name: str) -> None:
    reader, dice = known[name], random.Random(name)
    reader.read(reader.seed)
    for _ in range(TRIES):
        data = edited_json(reader.seed, dice) if reader.is_json and dice.random() < 0.7 else reader.seed
        data = edited_bytes(data, dice) if data is reader.seed or dice.random() < 0.2 else data
        try:
            reader.read(data)
        except BaseException as error:
            wrong = refusal(error)
            if wrong is not None:
                raise AssertionError(f"{wrong}: {data[:2000]!r}") from error


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        parse_json(data)
    except RecordError as error:
        assert "\n" not in str(error) and len(str(error)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(
        alphabet=st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_plain_json_comes_back_as_it_was(value: object) -> None:
    import json

    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000, "nested deeper than 64"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b'{"a": 1, "a": 2}', 'the key "a" occurs twice'),
        (b'{"a": {"b": 1, "b": 1}}', 'the key "b" occurs twice'),
        (b"[NaN]", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"[1e999]", "too large a number"),
        (b"9" * 5000, "too large a number"),
        (b'["\\ud800"]', "half a surrogate pair"),
        (b'{"\\udc00": 1}', "half a surrogate pair"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"", "not JSON"),
    ],
)
def test_what_other_readers_would_take(text: bytes, message: str) -> None:
    with pytest.raises(RecordError) as raised:
        parse_json(text)
    assert message in str(raised.value)


def test_a_whole_pair_is_text(tmp_path: Path) -> None:
    assert parse_json(b'["\\ud83d\\ude00"]') == ["\U0001f600"]
