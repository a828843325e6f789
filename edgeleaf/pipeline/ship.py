"""Makes a copy of a bundle to give away: fused file, certificate, student in half precision; a third of the size.

The copy's file may take another input, strings or bytes. Its vectors stay the same to the last bit.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.feed import INPUTS, Input
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.ladder import student_vectors
from edgeleaf.certify.processors import check_names
from edgeleaf.errors import BundleError, GateFailed, InputError
from edgeleaf.extras import require
from edgeleaf.files import whole_folder, write_bytes, write_text
from edgeleaf.models.weights import weights_sha256
from edgeleaf.pipeline.places import check_apart_from, open_bundle, output_folder
from edgeleaf.recipe.presets import TEXTS_DECIDE
from edgeleaf.records import shown
from edgeleaf.stages import texts as checks
from edgeleaf.stages.card import model_card
from edgeleaf.stages.checked import certify_bundle, gates_of, processor_facts, write_certificate
from edgeleaf.stages.golden import write_golden
from edgeleaf.stages.vectors import write_vectors
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.vectors import cosine_rows

BUNDLE, SENTENCE_TRANSFORMERS = FORMATS = ("bundle", "sentence-transformers")
LEFT_OUT = "onnx"
LEFT_TEXTS = 200
CLOSE = 0.99999
"""Lowest allowed cosine of the held-out texts' vectors to those of the student in float32."""


def lighten(
    bundle: Path,
    output: Path,
    *,
    texts: Sequence[str | Path] = (),
    processors: Sequence[str] = (),
    keep_texts: bool = False,
    takes: Input | None = None,
) -> Manifest:
    """Copy a bundle without its unfused graphs, with its student's weights in float16, certified on other texts.

    Args:
        bundle: a bundle folder, which is not changed. Its teacher must be available, unless ``keep_texts`` is set and
            the input stays the same.
        output: folder of the copy; an existing bundle is replaced.
        texts: files of queries that may be given away, one per line; if empty, documentation found on this machine is
            used. Documents are such documentation in any case.
        processors: processors to compare with this one, by their names in ``edgeleaf.emulation``.
        keep_texts: keep the bundle's own texts in the copy, and its certificate unless the input changes.
        takes: input of the copy's file, ``text`` or ``utf8``; None keeps the bundle's own.

    Raises:
        BundleError: the bundle is damaged, rounding changes its student too much, or the other input changes a vector;
            nothing is written.
        GateFailed: a gate that does not depend on the choice of texts fails; nothing is written.
    """
    from safetensors.numpy import load_file, save_file

    manifest = open_bundle(bundle)
    queries = [text.text for text in read_corpus(bundle, "held_out")][:LEFT_TEXTS]
    with whole_folder(output) as new:
        shutil.copytree(bundle, new, dirs_exist_ok=True, symlinks=True, ignore=shutil.ignore_patterns(LEFT_OUT))
        for path in sorted((new / layout.STUDENT).rglob("*.safetensors")):
            save_file({name: _half(tensor) for name, tensor in load_file(path).items()}, path, {"format": "pt"})
            path.chmod(0o644)
        before, after = (
            student_vectors(folder / layout.STUDENT, queries, prompt="", threads=2)[0] for folder in (bundle, new)
        )
        lowest = float(cosine_rows(before, after).min())
        if not lowest >= CLOSE:
            raise BundleError(f"{bundle}: its student in float16 has cosine {lowest:.6f} to itself; {CLOSE} is needed")
        progress.say(f"student in float16: cosine to itself at least {lowest:.7f}, {len(queries)} texts")
        weights = weights_sha256(new / layout.STUDENT)
        student = {**manifest.student, "weights_sha256": weights, "stored": "float16"}
        manifest = replace(manifest, student=student)
        other_input = takes is not None and takes != manifest.input
        if takes is not None and other_input:
            manifest = change_input(new, manifest, takes)
            held_out = [text.text for text in read_corpus(bundle, "held_out")]
            check_same_vectors(bundle, new, [*held_out, *(entry["text"] for entry in read_golden(bundle))])
        manifest = replace(manifest, files=layout.hash_files(new))
        manifest.write(new)
        if other_input or not keep_texts:
            manifest = certify_anew(new, manifest, texts, processors, own_texts=keep_texts)
        if other_input:
            check_same_vectors(bundle, new, [entry["text"] for entry in read_golden(new)])
    if Path(manifest.space.teacher).is_absolute():
        progress.say(
            f"ship: the teacher is a folder of this machine, and the copy names it: {manifest.space.teacher}; a bundle "
            "made with a hub id names that instead"
        )
    return manifest


def change_input(bundle: Path, manifest: Manifest, takes: Input) -> Manifest:
    """Give a bundle's encoder another input, or today's tokenizer graph; return the manifest.

    Results on processors are dropped: they are those of the old file.
    """
    import onnx

    from edgeleaf.graph.builder import serialize
    from edgeleaf.graph.fuse import with_input

    file = bundle / layout.QUERY_ENCODER
    made = with_input(
        onnx.load(str(file)),
        (bundle / layout.STUDENT / "tokenizer.json").read_text(encoding="utf-8"),
        max_length=int(manifest.fact("tokenizer", "max_length")),
        prompt=manifest.space.query_prompt,
        takes=takes,
    )
    write_bytes(file, serialize(made))
    return replace(manifest, input=takes, processors={})


def check_same_vectors(before: Path, after: Path, texts: Sequence[str]) -> None:
    """Check that the fused files of two bundles give the same vectors to the last bit, one text at a time.

    Raises:
        BundleError: they do not.
    """
    one, other = (QueryEncoder.load((folder / layout.QUERY_ENCODER).read_bytes()) for folder in (before, after))
    texts = list(dict.fromkeys(texts))
    changed = sum(not np.array_equal(one.encode([text]), other.encode([text])) for text in texts)
    if changed:
        raise BundleError(
            f"{before}: {changed} of {len(texts)} texts get different vectors from the new tokenizer graph"
        )
    progress.say(f"tokenizer graph: {len(texts)} of {len(texts)} texts have the same vector to the last bit")


def certify_anew(
    bundle: Path,
    manifest: Manifest,
    files: Sequence[str | Path],
    processors: Sequence[str],
    *,
    own_texts: bool,
) -> Manifest:
    """Replace a bundle's golden pack, certificate and card, and its held-out texts unless ``own_texts``."""
    teacher = teacher_of(manifest)
    with tempfile.TemporaryDirectory() as scratch:
        texts, vectors, cache = (Path(scratch) / name for name in ("texts", "vectors", "cache"))
        if own_texts:
            texts, origin, gates = bundle, str(manifest.fact("held_out", "origin")), gates_of(manifest)
        else:
            checks.check_texts(texts, files)
            shutil.copyfile(texts / layout.HELD_OUT, bundle / layout.HELD_OUT)
            origin = checks.origin(files)
            gates = replace(gates_of(manifest), **dict.fromkeys(TEXTS_DECIDE, None))
        write_vectors(vectors, texts, teacher, cache, names=("held_out",))
        held_out = read_corpus(bundle, "held_out")
        queries = [text.text for text in held_out if text.kind == "query"]
        window, prompt = int(manifest.fact("tokenizer", "max_length")), manifest.space.query_prompt
        write_golden(bundle, queries, max_length=window, prompt=prompt)
        certificate = certify_bundle(bundle, texts, vectors, manifest.space, gates, origin, processors=processors)
    if not certificate.passed:
        raise GateFailed(f"not copied: {'; '.join(certificate.failures)}")
    write_certificate(certificate, bundle)
    manifest = replace(
        manifest,
        held_out={"origin": origin, "texts": len(held_out)},
        processors={**manifest.processors, **processor_facts(certificate)},
    )
    write_text(bundle / layout.MODEL_CARD, model_card(manifest, certificate))
    manifest = replace(manifest, files=layout.hash_files(bundle))
    manifest.write(bundle)
    return manifest


def _half(tensor: Any) -> Any:
    return tensor.astype(np.float16) if tensor.dtype == np.float32 else tensor


def ship(
    bundle: str | Path,
    *,
    output: str | Path,
    texts: Sequence[str | Path] = (),
    processors: Sequence[str] = (),
    keep_texts: bool = False,
    takes: str | None = None,
    format: str = BUNDLE,  # noqa: A002 - the option's name
) -> Manifest:
    """Copy a bundle to give away: without unfused graphs and its own texts, with the student in float16.

    Args:
        bundle: a bundle folder, which is not changed.
        output: folder of the copy.
        texts: files of queries that may be given away, one per line, to certify the copy on; if empty, documentation
            found on this machine is used.
        processors: processors to compare with this one, as in :func:`run`.
        keep_texts: keep the bundle's own held-out texts in the copy, and its certificate unless the input changes.
        takes: input of the copy's file: ``utf8`` for bindings that cannot pass strings exactly (Java, Kotlin, React
            Native), or ``text``; None keeps the bundle's own. The vectors stay the same to the last bit.
        format: ``bundle``, or ``sentence-transformers``: one model for sentence-transformers 5.0 and newer, whose
            ``encode_query`` is the student and whose ``encode_document`` is the teacher. It has no other options, and
            ``output`` must be a new folder.

    Raises:
        BundleError: the bundle is damaged, ``output`` is there and not a bundle, or float16 costs the student too much.
        GateFailed: the copy fails a gate on other texts.
        InputError: ``keep_texts`` together with ``texts``, or with ``processors`` while the input stays; or an unknown
            input.
    """
    if format not in FORMATS:
        raise InputError(f"format is {shown(format)}; {' or '.join(FORMATS)} is needed")
    if format == SENTENCE_TRANSFORMERS:
        from edgeleaf.pipeline.two_routes import write_two_routes

        given = {"texts": texts, "processors": processors, "keep_texts": keep_texts, "input": takes}
        if unused := [name for name, value in given.items() if value]:
            raise InputError(
                f"{' and '.join(unused)} is for copies of a bundle; a sentence-transformers model has none"
            )
        check_apart_from(Path(bundle), output)
        require("ship")
        return write_two_routes(Path(bundle), Path(output))
    found = next((known for known in INPUTS if known == takes), None)
    if takes is not None and found is None:
        raise InputError(f"input is {takes!r}; {' or '.join(INPUTS)} is needed")
    if keep_texts and (texts or processors):
        certified = found is not None and found != Manifest.read(Path(bundle)).input
        if texts or not certified:
            raise InputError(
                "the bundle's own texts and certificate are to be kept, and it is to be certified: choose one"
            )
    check_names(processors)
    check_apart_from(Path(bundle), output)
    checks.own_queries(texts)
    require("ship")
    return lighten(
        Path(bundle), output_folder(output), texts=texts, processors=processors, keep_texts=keep_texts, takes=found
    )
