"""Checks before the long work: whether the tokenizer can be fused, and how many texts a window would truncate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeleaf import progress
from edgeleaf.errors import InputError, ModelError, TokenizerNotSupported, reason_of
from edgeleaf.models.encoder_kind import encoder_kind
from edgeleaf.models.resolve import identity, resolve
from edgeleaf.models.safety import check_model
from edgeleaf.recipe.sources import KINDS
from edgeleaf.recipe.specs import Recipe, StudentSpec, TeacherSpec
from edgeleaf.stages.graph import check_form
from edgeleaf.texts.corpus import read_corpus

if TYPE_CHECKING:
    from edgeleaf.teachers.base import Teacher


def check_tokenizer(spec: StudentSpec | TeacherSpec, *, prompt: str) -> None:
    """Check before the long work whether a model's tokenizer can be fused.

    Raises:
        TokenizerNotSupported, ExportError: it cannot; the message names the reason.
        ModelError: the model or its tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    model = spec.model
    folder = resolve(model, revision=spec.revision)
    trusted = isinstance(spec, TeacherSpec) and spec.trust_remote_code
    if not trusted:
        check_model(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trusted)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{model}: its tokenizer cannot be loaded: {reason_of(error)}") from None
    _check_fusable(tokenizer, spec, prompt=prompt)
    progress.say(f"tokenizer of {model}: can be fused")


def _check_fusable(tokenizer: Any, spec: StudentSpec | TeacherSpec, *, prompt: str) -> None:
    from edgeleaf.graph.builder import OPSET, GraphBuilder, TensorProto
    from edgeleaf.graph.tokenizers import append_tokenizer, opset_of
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer
    from edgeleaf.training.student import shipped_tokenizer

    model, max_length = spec.model, spec.max_length
    if not tokenizer.is_fast:
        raise TokenizerNotSupported(f"{model} has no tokenizer.json; give a model with a fast tokenizer")
    settings = shipped_tokenizer(tokenizer, max_length).to_str()
    if not reference_tokenizer(settings, max_length).encode("").ids:
        raise TokenizerNotSupported(f"{model}: its tokenizer gives no token for an empty text; [CLS] is needed")
    builder = GraphBuilder("check", opset=max(OPSET, opset_of(settings)))
    text = builder.input("text", TensorProto.STRING, ["batch"])
    append_tokenizer(builder, text, settings, max_length=max_length, prompt=prompt)


def check_encoder(spec: StudentSpec, *, exporter: str, preset: str) -> None:
    """Check before the long work whether a student can be exported and quantised, by doing so with its start.

    Known architectures are not tried.

    Raises:
        ExportError: it cannot; the message names the part that has no form.
    """
    from edgeleaf.graph.export import export_onnx
    from edgeleaf.graph.exporters import KNOWN_ENCODERS

    folder = resolve(spec.model, revision=spec.revision)
    kind = encoder_kind(folder)
    if kind not in KNOWN_ENCODERS:
        progress.say(f"{spec.model}: {kind or 'its architecture'} is not among those known to export; trying it")
        check_form(export_onnx(folder, exporter=exporter), preset)


def look_at_texts(texts: Path, recipe: Recipe, teacher: Teacher) -> None:
    """Report, before the long work, how many training texts the teacher's and the student's windows truncate.

    Raises:
        TextsError: a held-out text is among the training texts.
    """
    from edgeleaf.teachers.window import uncut_tokenizer
    from edgeleaf.training.guards import CUT_SAMPLE, check_apart, say_cut, say_longer

    train = read_corpus(texts, "train")
    check_apart((text.text for text in train), (text.text for text in read_corpus(texts, "held_out")))
    sample = train[:CUT_SAMPLE]
    counted = [teacher.lengths([text.text for text in sample if text.kind == kind], kind=kind) for kind in KINDS]
    say_longer([length for lengths in counted for length in lengths or ()], recipe.teacher.max_length, who="teacher")
    prompts = {"query": teacher.space.query_prompt, "document": teacher.space.document_prompt}
    start = resolve(recipe.student.model, revision=recipe.student.revision)
    whole = [prompts[text.kind] + text.text for text in sample]
    say_cut(whole, uncut_tokenizer(start), recipe.student.max_length, who="student")


def export_spec(
    name: str,
    *,
    max_length: int | None,
    query_prompt: str | None,
    prompt_name: str | None = None,
    trust_remote_code: bool = False,
) -> TeacherSpec:
    """Describe a model that is exported unchanged; the window and the prompts are the model's unless they are given.

    Raises:
        ModelError: the model cannot be loaded, has no prompt of that name, or contains code of its own, which a bundle
            cannot hold.
        InputError: both a prompt and the name of a prompt are given.
    """
    from edgeleaf.graph.exporters import check_size
    from edgeleaf.models.loading import has_own_code, load_sentence_transformer

    if query_prompt is not None and prompt_name is not None:
        raise InputError("both a prompt and the name of a prompt are given; give --prompt or --prompt-name")
    model = load_sentence_transformer(resolve(name), max_length=max_length, trust_remote_code=trust_remote_code)
    if has_own_code(model):
        raise ModelError(
            f"{name} contains code of its own, and a bundle holds only data, so it cannot be a student; distil it "
            "with edgeleaf run and teacher.trust_remote_code = true in the recipe"
        )
    check_size(model, name)
    named = {key: prompt for key, prompt in model.prompts.items() if prompt}
    default = model.default_prompt_name
    if query_prompt is None and prompt_name is None and named and "query" not in named:
        queries = [key for key in named if "query" in key.lower()]
        if default in named:
            prompt_name = default
            progress.say(
                f"query prompt: {named[default]!r}, the model's default prompt {default!r}; --prompt replaces it"
            )
        elif len(queries) == 1:
            (prompt_name,) = queries
            progress.say(f"query prompt: {named[prompt_name]!r}, the model's {prompt_name!r}; --prompt replaces it")
        else:
            names = ", ".join(sorted(named))
            progress.say(f"query prompt: none; the model has prompts named {names}: choose one with --prompt-name")
    if prompt_name is not None:
        if prompt_name not in named:
            known = ", ".join(sorted(named)) or "none"
            raise ModelError(f"{name} has no prompt named {prompt_name!r}; its prompts: {known}")
        query_prompt = named[prompt_name]
    document_prompts = (model.prompts.get(key) for key in ("document", "passage"))
    spec = TeacherSpec(
        model=identity(name),
        max_length=int(model.max_seq_length),
        query_prompt=query_prompt if query_prompt is not None else model.prompts.get("query") or "",
        document_prompt=next((prompt for prompt in document_prompts if prompt), ""),
        trust_remote_code=trust_remote_code,
    )
    check_modules(model, spec)
    return spec


def check_modules(model: Any, spec: TeacherSpec) -> None:
    """Check whether a model consists of modules that can be exported.

    Raises:
        ModelError: it has other modules, or leaves its prompt out of the pooling.
        TokenizerNotSupported: its tokenizer cannot be fused.
    """
    kinds = [type(part).__name__ for part in model]
    after = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or not {*after} <= {"Dense", "Normalize"}:
        raise ModelError(
            f"{spec.model} consists of {', '.join(kinds)}; only Transformer, Pooling, Dense, Normalize can be exported"
        )
    if spec.query_prompt and not getattr(model[1], "include_prompt", True):
        raise ModelError(
            f"{spec.model} leaves its prompt out of the pooling; only pooling over all tokens can be exported"
        )
    # Check the loaded model's own tokenizer: the model's settings (do_lower_case) may change what tokenizer.json does.
    _check_fusable(model.tokenizer, spec, prompt=spec.query_prompt)
