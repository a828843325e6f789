"""Makes a bundle from an existing sentence-transformers model, without distilling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import get_args, get_type_hints

from edgeleaf.certify.processors import check_names
from edgeleaf.errors import InputError
from edgeleaf.extras import by_exporter, require
from edgeleaf.pipeline.finish import Result, exported, finish
from edgeleaf.pipeline.places import output_folder, work_folder
from edgeleaf.pipeline.preflight import check_tokenizer, export_spec
from edgeleaf.recipe.presets import PRESETS, export_gates
from edgeleaf.recipe.sources import MachineSource
from edgeleaf.recipe.specs import BenchmarkSpec, ExportSpec, QuantizationSpec
from edgeleaf.stages.graph import CALIBRATION_TEXTS, check_form, exported_graph
from edgeleaf.stages.job import Job
from edgeleaf.stages.runner import Stages
from edgeleaf.stages.student import normalized_copy, vocabulary_facts
from edgeleaf.stages.texts import check_texts, origin, own_queries, query_files
from edgeleaf.stages.vectors import VECTOR_CACHE, write_vectors
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.texts.readers import fingerprint
from edgeleaf.texts.words import check_languages, words_of


def export(
    model: str,
    *,
    output: str | Path,
    prompt: str | None = None,
    prompt_name: str | None = None,
    max_length: int | None = None,
    texts: Sequence[str | Path] = (),
    vocab_from: Sequence[str | Path] = (),
    languages: Sequence[str] = (),
    exporter: str = ExportSpec().exporter,
    preset: str = QuantizationSpec().preset,
    processors: Sequence[str] = (),
    trust_remote_code: bool = False,
    force: bool = False,
) -> Result:
    """Make a fused, quantised, checked bundle from an existing sentence-transformers model, without distilling.

    The model is its own teacher: the certificate reports how close the file is to the model's own vectors.

    Args:
        model: a local folder, a hub id, or a model that a pip package carries. It needs a tokenizer that
            ``edgeleaf.graph.tokenizers`` accepts (WordPiece as BERT's, byte-level BPE, SentencePiece's BPE with byte
            fallback, Unigram) and mean, CLS or last-token pooling, with or without Dense and Normalize (vectors are
            normalised in any case).
        output: folder of the bundle.
        prompt: text that the file puts before every query; None means the model's own query prompt.
        prompt_name: use the model's own prompt of this name; not together with ``prompt``.
        max_length: window in tokens; None means the model's own.
        texts: files with queries to check with, one per line; if empty, documentation found on this machine is used.
        vocab_from: files of texts, one per line: the file keeps only the tokens that they use
            (:mod:`edgeleaf.models.vocabulary`). Some of these texts are kept apart, and the certificate compares the
            file on them with the whole model.
        languages: codes of languages, such as ``de``: the file keeps only the tokens of their words. It then needs
            ``texts`` or ``vocab_from``, since it is checked with texts in these languages only.
        exporter: torch or optimum, see :class:`edgeleaf.recipe.specs.ExportSpec`.
        preset: a name in :data:`edgeleaf.recipe.presets.PRESETS`, such as int8 or int4-weights.
        processors: as for :func:`run`.
        trust_remote_code: run code that comes with the model while it is loaded; the manifest records it. A model that
            consists of such code is still refused, because a bundle is data. Distil it instead (:func:`run`).
        force: run every stage again.

    Raises:
        GateFailed, EdgeleafError: like :func:`run`.
    """
    target = output_folder(output)
    check_names(processors)
    if preset not in PRESETS:
        raise InputError(f"preset is {preset!r}; allowed: {', '.join(PRESETS)}")
    own_queries(texts)
    if languages:
        check_languages(languages)
        if not (texts or vocab_from):
            raise InputError("languages need texts to check with: give --texts, queries in these languages")
    own = vocab_from or (texts if languages else ())
    queries = texts if vocab_from or not languages else ()
    if exporter not in (known := get_args(get_type_hints(ExportSpec)["exporter"])):
        raise InputError(f"exporter is {exporter!r}; allowed: {', '.join(known)}")
    require("export", *by_exporter(exporter))
    spec = export_spec(
        model, max_length=max_length, query_prompt=prompt, prompt_name=prompt_name, trust_remote_code=trust_remote_code
    )
    check_tokenizer(spec, prompt=spec.query_prompt)
    with Stages(work_folder(target), force=force) as stages:
        teacher = SentenceTransformerTeacher(spec)
        machine = () if own else (MachineSource(),)
        held_out = stages.run(
            "texts",
            {
                "files": fingerprint([*query_files(queries), *machine], Path()),
                "others": fingerprint(query_files(own), Path()),
            },
            lambda folder: check_texts(folder, queries, others=own, calibration=CALIBRATION_TEXTS),
        )

        def vocabulary() -> Iterable[str]:
            kept = (text.text for text in read_corpus(held_out, "train")) if vocab_from else ()
            return chain(kept, words_of(languages))

        student = stages.run(
            "student",
            {"model": teacher.space, "max_length": spec.max_length}
            | ({"texts": held_out, "vocabulary": [bool(vocab_from), *languages]} if own else {}),
            lambda folder: normalized_copy(
                folder, teacher.folder, spec, texts=held_out, vocabulary=vocabulary if own else None
            ),
        )
        check_form(exported_graph(exported(stages, held_out, student, exporter=exporter)), preset)
        cache = stages.work / VECTOR_CACHE
        vectors = stages.run(
            "vectors",
            {"texts": held_out, "space": teacher.space, "max_length": spec.max_length},
            lambda folder: write_vectors(folder, held_out, teacher, cache, names=("held_out",)),
        )
        job = Job(
            name=spec.model.rsplit("/", 1)[-1],
            description=f"{model}, exported as it is.",
            space=teacher.space,
            teacher=teacher.folder,
            teacher_max_length=spec.max_length,
            max_length=spec.max_length,
            made_by={
                "start": spec.model,
                **vocabulary_facts(student),
                **({"teacher_trust_remote_code": True} if trust_remote_code else {}),
            },
            origin=origin(queries, own),
            gates=export_gates(preset),
            benchmark=BenchmarkSpec(),
            exporter=exporter,
            preset=preset,
            processors=processors,
            torch_student=False,
        )
        return finish(job, stages, held_out, vectors, student, target)
