"""edgeleaf.teachers.decoder: direction, ids, pooling, and what lies around a text, on tiny random Qwen2 and Mistral."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import ModelError, RecipeError
from edgeleaf.recipe.teachers import Example, TeacherSpec
from tests.conftest import computing_in_float32, made_once, tiny_texts
from tests.teachers.decoders import END, make_tiny_decoder

pytest.importorskip("torch")

from edgeleaf.teachers import decoder_model
from edgeleaf.teachers.decoder import DecoderTeacher
from edgeleaf.teachers.decoder_model import load_decoder
from edgeleaf.teachers.decoder_tokens import bare_tokenizer
from edgeleaf.teachers.opening import access_of, check_space, load_teacher, teacher_spec

FAMILIES = ("Qwen2", "Mistral")
TEXTS = [*tiny_texts(20, low=1, high=30, seed=9), "x", "Ünïcödé 中文 😀"]


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    def make(folder: Path) -> None:
        for family in FAMILIES:
            make_tiny_decoder(folder / family, family)

    made = made_once(tmp_path_factory, "decoders", make)
    return {family: made / family for family in FAMILIES}


@pytest.fixture(autouse=True)
def _in_float32() -> Iterator[None]:
    with computing_in_float32():
        yield


@pytest.fixture
def qwen(decoders: dict[str, Path]) -> TeacherSpec:
    return TeacherSpec(str(decoders["Qwen2"]), kind="decoder", attention="bidirectional", pooling="mean", max_length=32)


@pytest.fixture
def mistral(decoders: dict[str, Path]) -> TeacherSpec:
    return TeacherSpec(
        str(decoders["Mistral"]),
        kind="decoder",
        attention="causal",
        pooling="last",
        max_length=32,
        bos_token="<s>",
        eos_token="</s>",
    )


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_token_moves_the_first_state_only_if_bidirectional(
    decoders: dict[str, Path], family: str, attention: Any, implementation: str
) -> None:
    model = load_decoder(decoders[family], attention=attention, pooling="mean", implementation=implementation)
    row, changed, longer = [5, 6, 7, 8], [5, 6, 7, 9], [9, 8, 7, 6, 5, 4, 3]
    for others, padding in (([], "right"), ([longer], "right"), ([longer], "left")):
        states = [model._first_state([ids, *others], padding) for ids in (row, changed)]
        moved = float((states[0] - states[1]).abs().max())
        assert moved > 0.01 if attention == "bidirectional" else moved == 0.0, (others, padding)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("family", FAMILIES)
def test_alone_left_padded_right_padded_and_by_length_are_the_same(
    decoders: dict[str, Path], family: str, attention: Any, pooling: Any
) -> None:
    spec = TeacherSpec(
        str(decoders[family]), kind="decoder", attention=attention, pooling=pooling, eos_token=END[family]
    )
    teacher = DecoderTeacher(spec)
    rows = teacher._tokens.ids(TEXTS, kind="query")
    model = teacher._model
    alone = np.concatenate([model.vectors([row]) for row in rows])
    scale = np.linalg.norm(alone, axis=1).max()
    for padding in ("left", "right"):
        assert np.abs(model.vectors(rows, padding=padding) - alone).max() < 1e-5 * scale, padding
    unit = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    assert np.abs(teacher.encode(TEXTS, kind="query") - unit).max() < 1e-5
    assert np.abs(teacher.encode(TEXTS[::-1], kind="query")[::-1] - unit).max() < 1e-5
    assert len({tuple(np.round(row, 3)) for row in unit}) == len(TEXTS)


def test_bfloat16_is_close_and_no_reason_to_refuse(qwen: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = DecoderTeacher(qwen).encode(TEXTS, kind="query")
    monkeypatch.setattr("edgeleaf.models.loading.has_bfloat16", lambda device: True)
    rounded = DecoderTeacher(qwen).encode(TEXTS, kind="query")
    assert not np.array_equal(rounded, exact)
    assert (rounded * exact).sum(axis=1).mean() > 0.999


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_causal_decoder_gives_what_transformers_gives_for_one_text(mistral: TeacherSpec, pooling: Any) -> None:
    import torch
    from transformers import AutoModel

    teacher = DecoderTeacher(replace(mistral, pooling=pooling))
    model = AutoModel.from_pretrained(mistral.model, torch_dtype=torch.float32).eval()
    for text, vector in zip(TEXTS[:5], teacher.encode(TEXTS[:5], kind="document"), strict=True):
        ids = bare_tokenizer(Path(mistral.model)).encode(text, add_special_tokens=False).ids[:32]
        with torch.inference_mode():
            states = model(torch.tensor([[1, *ids, 2]])).last_hidden_state[0].numpy()
        pooled = states.mean(axis=0) if pooling == "mean" else states[-1]
        assert np.abs(vector - pooled / np.linalg.norm(pooled)).max() < 1e-5


def test_a_bidirectional_decoder_gives_what_transformers_5_gives_for_one_text(qwen: TeacherSpec) -> None:
    import torch
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 4 ignores is_causal in a configuration")
    config = transformers.AutoConfig.from_pretrained(qwen.model)
    config.is_causal = False
    model = transformers.AutoModel.from_pretrained(qwen.model, config=config, dtype=torch.float32).eval()
    teacher = DecoderTeacher(qwen)
    for text, vector in zip(TEXTS[:5], teacher.encode(TEXTS[:5], kind="document"), strict=True):
        ids = bare_tokenizer(Path(qwen.model)).encode(text, add_special_tokens=False).ids[:32]
        with torch.inference_mode():
            states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
        pooled = states.mean(axis=0)
        assert np.abs(vector - pooled / np.linalg.norm(pooled)).max() < 1e-5


@pytest.mark.parametrize(("said", "really"), [("bidirectional", "causal"), ("causal", "bidirectional")])
def test_a_transformers_that_does_not_obey_is_refused(
    qwen: TeacherSpec, monkeypatch: pytest.MonkeyPatch, said: Any, really: Any
) -> None:
    obeyed = decoder_model.additive_mask
    monkeypatch.setattr(decoder_model, "additive_mask", lambda mask, attention: obeyed(mask, really))
    with pytest.raises(ModelError, match=f"transformers .* is {really}, alone; the recipe says {said}"):
        DecoderTeacher(replace(qwen, attention=said))


def test_a_transformers_that_obeys_until_a_batch_is_padded_is_refused(
    qwen: TeacherSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    obeyed = decoder_model.additive_mask
    monkeypatch.setattr(
        decoder_model,
        "additive_mask",
        lambda mask, attention: obeyed(mask, attention if bool(mask.all()) else "causal"),
    )
    with pytest.raises(ModelError, match="is causal, padded on the right; the recipe says bidirectional"):
        DecoderTeacher(qwen)


def test_padding_that_is_seen_is_refused(qwen: TeacherSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    obeyed = decoder_model.additive_mask
    monkeypatch.setattr(
        decoder_model, "additive_mask", lambda mask, attention: obeyed(torch.ones_like(mask), attention)
    )
    with pytest.raises(ModelError, match="padding on the right changes a vector"):
        DecoderTeacher(qwen)


def test_first_and_last_ids_whatever_transformers_adds(mistral: TeacherSpec) -> None:
    teacher = DecoderTeacher(mistral)
    long = " ".join(["parcel"] * 500)
    for kind in ("query", "document"):
        for row in teacher._tokens.ids([*TEXTS, long, "", "<s>"], kind=kind):
            assert (row[0], row[-1]) == (1, 2)
    bare = DecoderTeacher(replace(mistral, bos_token=None, eos_token=None))
    assert {bare._tokens.ids([long], kind="query")[0][at] for at in (0, -1)}.isdisjoint({1, 2})
    assert len(teacher._tokens.ids([long], kind="query")[0]) == 2 + 32


def test_the_window_counts_the_text_alone(qwen: TeacherSpec) -> None:
    examples = tuple(Example(f"find {text}", text) for text in tiny_texts(3, low=8, high=10, seed=4))
    spec = replace(
        qwen, max_length=8, query_template="<instruct>{instruction}\n<query>{text}\n<response>", instruction="answer",
        examples=examples,
    )  # fmt: skip
    teacher, text = DecoderTeacher(spec), "parcel lost found where my is the a an of return value"
    cut = teacher._tokens.cut([text])[0]
    own = bare_tokenizer(Path(qwen.model))
    assert own.encode(text).ids[:8] == own.encode(cut).ids
    rendered = teacher.rendered(text, kind="query")
    assert rendered.text.endswith(f"\n\n<instruct>answer\n<query>{cut}\n<response>")
    assert own.decode(list(rendered.ids or ())) == rendered.text
    assert len(rendered.ids or ()) > 60
    assert teacher.rendered(text, kind="document").text == cut
    assert teacher.lengths([text, "x"], kind="query") == [len(own.encode(text).ids), 1]
    same = teacher.encode([text, cut], kind="query")
    assert np.abs(same[0] - same[1]).max() < 1e-6


def test_examples_are_rendered_as_in_bge_en_icl(qwen: TeacherSpec) -> None:
    """FlagEmbedding: get_detailed_example joined by blank lines, before the query; documents get none."""
    spec = replace(
        qwen,
        query_template="<instruct>{instruction}\n<query>{text}\n<response>",
        instruction="Given a query, answer it.",
        examples=(Example("what is a river", "water that flows"), Example("what is stone", "hard ground")),
    )
    teacher = DecoderTeacher(spec)
    assert teacher.rendered("what is a city", kind="query").text == (
        "<instruct>Given a query, answer it.\n<query>what is a river\n<response>water that flows\n\n"
        "<instruct>Given a query, answer it.\n<query>what is stone\n<response>hard ground\n\n"
        "<instruct>Given a query, answer it.\n<query>what is a city\n<response>"
    )
    assert teacher.rendered("what is a city", kind="document").text == "what is a city"
    space = teacher.space
    assert space.query_prompt == "<instruct>Given a query, answer it.\n<query>"
    assert (space.query_suffix, space.document_suffix) == ("\n<response>", None)
    assert space.query_context is not None and space.query_context.count("<response>") == 2
    assert DecoderTeacher(qwen).space.query_context is None, "k = 0 by default"


def test_dims_keep_the_first_numbers(qwen: TeacherSpec) -> None:
    whole, short = DecoderTeacher(qwen), DecoderTeacher(replace(qwen, dims=8))
    expected = whole.encode(TEXTS, kind="query")[:, :8]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(short.encode(TEXTS, kind="query") - expected).max() < 1e-6
    assert (whole.space.dim, short.space.dim) == (32, 8)
    assert whole.space.id != short.space.id


def test_the_space_records_what_decides_a_vector(qwen: TeacherSpec, mistral: TeacherSpec) -> None:
    spaces = [
        DecoderTeacher(spec).space
        for spec in (
            qwen,
            replace(qwen, attention="causal"),
            replace(qwen, pooling="last"),
            replace(qwen, query_prompt="q: "),
            replace(qwen, query_template="{text}!"),
            replace(qwen, document_template="{text}!"),
            replace(qwen, eos_token="<|im_end|>"),
            mistral,
            replace(mistral, bos_token=None),
        )
    ]
    assert len({space.id for space in spaces}) == len(spaces)
    assert (spaces[7].attention, spaces[7].pooling, spaces[7].eos_token) == ("causal", "lasttoken", "</s>")


def test_a_bundle_opens_it_again(mistral: TeacherSpec, tmp_path: Path) -> None:
    spec = replace(
        mistral,
        query_template="Instruct: {instruction}\nQuery: {text}\n",
        instruction="search",
        examples=(Example("who", "she"),),
        dims=16,
    )
    teacher = DecoderTeacher(spec)
    made = manifest(teacher, access_of(spec))
    made.write(tmp_path)
    read = Manifest.read(tmp_path)
    assert read == made
    again = load_teacher(teacher_spec(read, training_vectors="int8"))
    assert again.space == teacher.space
    assert np.array_equal(again.encode(TEXTS, kind="query"), teacher.encode(TEXTS, kind="query"))
    with pytest.raises(ModelError, match='eos_token is "</s>", the bundle\'s space has null'):
        check_space(teacher, replace(teacher.space, eos_token=None))


def manifest(teacher: Any, student: dict[str, Any]) -> Manifest:
    tables: dict[str, dict[str, Any]] = {key: {} for key in ("tokenizer", "quantization", "gates", "held_out", "files")}
    return Manifest(
        space=teacher.space,
        recipe="r",
        description="",
        teacher_max_length=teacher.max_length,
        student=json.loads(json.dumps(student)),
        dims=(teacher.space.dim,),
        edgeleaf_version="0",
        **tables,
    )


def test_a_window_for_documents(qwen: TeacherSpec, tmp_path: Path) -> None:
    teacher = DecoderTeacher(qwen)
    assert teacher.widened(at_least=32).tokens == 32, "positions say nothing about training"
    shutil.copytree(qwen.model, tmp_path / "q")
    (tmp_path / "q" / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    teacher = DecoderTeacher(replace(qwen, model=str(tmp_path / "q"), document_template="{text}</d>"))
    window = teacher.widened(at_least=32)
    text = " ".join(tiny_texts(1, low=50, high=50, seed=1))
    count = len(bare_tokenizer(tmp_path / "q").encode(text).ids)
    assert (window.tokens, teacher.max_length) == (64, 64)
    assert window.longer([text, "x"]) == ([0] if count > 64 else [])
    around = len(bare_tokenizer(tmp_path / "q").encode("</d>").ids)
    assert len(teacher.rendered(text, kind="document").ids or ()) <= 64 + around + 1


RECIPE_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"attention": None}, 'teacher.attention is missing; a decoder needs "bidirectional" or "causal"'),
    ({"pooling": None}, 'teacher.pooling is missing; a decoder needs "mean" or "last"'),
    ({"pooling": "cls"}, 'teacher.pooling is "cls"; a decoder needs "mean" or "last"'),
    ({"query_template": "Query:"}, r'teacher.query_template is "Query:"; \{text\} is needed in it, once'),
    ({"query_template": "{text}{text}"}, r"\{text\} is needed in it, once"),
    ({"document_template": "doc"}, "teacher.document_template is"),
    ({"query_template": "{text}", "query_prompt": "q"}, "are both there: leave one out"),
    ({"query_template": "{instruction} {text}"}, "teacher.instruction is missing: add it"),
    ({"instruction": "search"}, "no template has {instruction}"),
    ({"query_template": "{instruction}{text}", "instruction": "a {text}"}, "must not hold a placeholder"),
    ({"examples": (Example("a", "b"),)}, "need a query_template that goes on after the text"),
    (
        {"query_template": "{text}\n>", "examples": (Example("Where is it?", " where  is it?"),)},
        r'teacher.examples\[0\] answers "Where is it\?" with itself',
    ),
    ({"query_template": "{text}\n>", "examples": (Example("a", " "),)}, r"teacher.examples\[0\] has an empty response"),
    ({"eos_token": "</s>"}, r'teacher.eos_token is "</s>", which is no token of Qwen2; its special tokens: "<|endof'),
    ({"bos_token": ""}, 'teacher.bos_token is "", which is no token'),
    ({"dims": 33}, "teacher.dims is 33; .* gives 32 numbers"),
    ({"max_length": 255, "eos_token": "<|im_end|>", "query_prompt": "find it: "}, "has positions for 256"),
    ({"training_vectors": "int8"}, 'teacher.training_vectors is not for the kind "decoder", only for "sentence-trans'),
    ({"kind": "sentence-transformers"}, 'teacher.attention is not for the kind "sentence-transformers", only for "dec'),
]


@pytest.mark.parametrize(("change", "message"), RECIPE_FAULTS, ids=lambda value: str(value)[:40])
def test_what_makes_no_sense_is_refused(qwen: TeacherSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_teacher(replace(qwen, **change))


def test_folders_that_are_no_decoder_are_refused(
    qwen: TeacherSpec, tmp_path: Path, tiny_student: Path, tiny_teacher: Path
) -> None:
    with pytest.raises(ModelError, match="BertModel is not a decoder such as Qwen2"):
        DecoderTeacher(replace(qwen, model=str(tiny_student)))
    with pytest.raises(ModelError, match="has a module Dense, which a teacher of kind decoder does not have"):
        DecoderTeacher(replace(qwen, model=str(tiny_teacher)))
    shutil.copytree(qwen.model, tmp_path / "q")
    (tmp_path / "q" / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer.json: damaged"):
        DecoderTeacher(replace(qwen, model=str(tmp_path / "q")))
    (tmp_path / "q" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer.json"):
        DecoderTeacher(replace(qwen, model=str(tmp_path / "q")))


def test_an_empty_text_without_a_token_is_one_line(qwen: TeacherSpec) -> None:
    with pytest.raises(ModelError, match="Qwen2 has no token for the document ''"):
        DecoderTeacher(qwen).encode(["a", ""], kind="document")
    ended = DecoderTeacher(replace(qwen, eos_token="<|endoftext|>"))
    assert np.isfinite(ended.encode(["a", ""], kind="document")).all()
    assert ended.encode([], kind="document").shape == (0, 32)
