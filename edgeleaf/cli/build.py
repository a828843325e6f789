"""Commands that make something: bundles, students, fused files, copies to give away; and push, which hands one on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import edgeleaf
from edgeleaf.cli.options import (
    AsJson,
    Bundle,
    Engine,
    Force,
    Output,
    Processors,
    Shards,
    ShardTexts,
    TextFiles,
    Workers,
    cluster_of,
    echo,
    print_json,
    print_table,
    processor_names,
)
from edgeleaf.distributed.team import team
from edgeleaf.errors import InputError


class Form(StrEnum):
    """What ``edgeleaf ship`` writes."""

    BUNDLE = "bundle"
    WHEEL = "wheel"
    SENTENCE_TRANSFORMERS = "sentence-transformers"


def run_command(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as export/recipes/demo.toml.")],
    output: Output,
    processors: Processors = "",
    force: Force = False,
    as_json: AsJson = False,
    engine: Engine = "local",
    shards: Shards = None,
    workers: Workers = None,
    shard: ShardTexts = None,
) -> None:
    """Build a certified bundle from a recipe; continues where a stopped run left off."""
    from edgeleaf.cli import tables

    cluster = cluster_of(engine, shards, workers, shard)
    if not team().main:  # of several processes, the others only train
        edgeleaf.distill(recipe, output=output, force=force, cluster=cluster)
        return
    result = edgeleaf.run(recipe, output=output, processors=processor_names(processors), force=force, cluster=cluster)
    print_json(tables.result_summary(result)) if as_json else print_table(tables.result_table(result))


def adapt_command(
    bundle: Bundle,
    documents: Annotated[
        Path,
        typer.Option(help="Your documents: BEIR's corpus.jsonl, or .txt with one document per line; may be gzipped."),
    ],
    output: Output,
    queries: Annotated[
        Path | None, typer.Option(help="Real queries, if you have any: .txt, .tsv or .jsonl, gzipped or not.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Distill a bundle's student further on your own text, without labels."""
    from edgeleaf.cli import tables

    result = edgeleaf.adapt(bundle, documents=documents, queries=queries, output=output, force=force)
    print_json(tables.result_summary(result)) if as_json else print_table(tables.result_table(result))


def distill_command(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as export/recipes/demo.toml.")],
    output: Output,
    force: Force = False,
    engine: Engine = "local",
    shards: Shards = None,
    workers: Workers = None,
    shard: ShardTexts = None,
) -> None:
    """Run a recipe up to the student, a sentence-transformers model, and print its folder."""
    cluster = cluster_of(engine, shards, workers, shard)
    echo(str(edgeleaf.distill(recipe, output=output, force=force, cluster=cluster)))


def export_command(
    model: Annotated[str, typer.Argument(help="A sentence-transformers model: local folder or hub id.")],
    output: Output,
    prompt: Annotated[
        str | None,
        typer.Option(help="Text that the file puts before every query. Default: the model's own query prompt."),
    ] = None,
    prompt_name: Annotated[
        str | None, typer.Option(help="Name of one of the model's own prompts, to use it; not together with --prompt.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Window in tokens. Default: the model's own.")] = None,
    texts: TextFiles = None,
    vocab_from: Annotated[
        list[Path] | None,
        typer.Option(help="File of texts, one per line: keep only the tokens that they use. May be repeated."),
    ] = None,
    languages: Annotated[
        str, typer.Option(help="Keep only the tokens of these languages, such as de,en; needs --texts in them.")
    ] = "",
    exporter: Annotated[
        str,
        typer.Option(help="What exports the graph: torch, or optimum (needs edgeleaf[optimum] and transformers 4)."),
    ] = "torch",
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Run code that comes with the model, to load it. Never on by default."
        ),
    ] = False,
    preset: Annotated[
        str, typer.Option(help="How the file is quantised: int8, int4, int8-weights, int4-weights, fp16 or fp32.")
    ] = "int8",
    processors: Processors = "",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make a fused, quantised, checked bundle from an existing model, without distilling."""
    from edgeleaf.cli import tables

    result = edgeleaf.export(
        model,
        output=output,
        prompt=prompt,
        prompt_name=prompt_name,
        max_length=max_length,
        texts=texts or (),
        vocab_from=vocab_from or (),
        languages=[language.strip() for language in languages.split(",") if language.strip()],
        exporter=exporter,
        preset=preset,
        processors=processor_names(processors),
        trust_remote_code=trust_remote_code,
        force=force,
    )
    print_json(tables.result_summary(result)) if as_json else print_table(tables.result_table(result))


def fuse_command(
    tokenizer: Annotated[Path, typer.Argument(help="A tokenizer.json.")],
    model: Annotated[
        Path,
        typer.Argument(help="An ONNX encoder with inputs input_ids, attention_mask and optionally token_type_ids."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls, last or max, for an encoder whose output is token vectors.")
    ] = None,
    encoder_output: Annotated[
        str | None,
        typer.Option(help="Name of the encoder's output to use. Default: the one that fits, or the last layer."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=3, help="Window in tokens. Default: the tokenizer's own.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Text that the file puts before every text.")] = "",
    dims: Annotated[int | None, typer.Option(min=1, help="Cut vectors to this many numbers (Matryoshka).")] = None,
    as_json: AsJson = False,
) -> None:
    """Put a tokenizer into an ONNX encoder that you already have; exit 1 if a token id would differ."""
    from edgeleaf.cli import tables
    from edgeleaf.graph.standalone import fuse_file

    made = fuse_file(
        tokenizer,
        model,
        output,
        pooling=pooling,
        encoder_output=encoder_output,
        max_length=max_length,
        prompt=prompt,
        dim=dims,
    )
    print_json(tables.fused_summary(made)) if as_json else print_table(tables.fused_table(made))


def ship_command(
    bundle: Bundle,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the copy, or the folder that the wheel is written into.")
    ],
    texts: TextFiles = None,
    processors: Processors = "",
    keep_texts: Annotated[
        bool,
        typer.Option("--keep-texts", help="Keep the bundle's own held-out texts and its certificate in the copy."),
    ] = False,
    takes: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Input of the copy's file: text (strings), or utf8 (their bytes: Java, Kotlin, React Native). "
            "Default: as it is.",
        ),
    ] = None,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="bundle: a copy. wheel: a package for pip, without the student. sentence-transformers: one model of "
            "student (encode_query) and teacher (encode_document).",
        ),
    ] = Form.BUNDLE,
    name: Annotated[
        str | None,
        typer.Option(help="What QueryEncoder.load will know an installed wheel by. Default: the folder's name."),
    ] = None,
    version: Annotated[str | None, typer.Option(help="Version of the wheel. Default: 1.0.")] = None,
) -> None:
    """Copy a bundle to give away: no unfused graphs, the student in float16, certified on texts that are not yours."""
    if form is Form.WHEEL:
        from edgeleaf.pipeline.wheel import FIRST_VERSION, ship_wheel

        wheel = ship_wheel(
            bundle,
            output=output,
            name=name,
            version=FIRST_VERSION if version is None else version,
            texts=texts or (),
            processors=processor_names(processors),
            keep_texts=keep_texts,
            takes=takes,
        )
        echo(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")
        return
    if name is not None or version is not None:
        raise InputError("--name and --version are a wheel's: add --format wheel")
    edgeleaf.ship(
        bundle,
        output=output,
        texts=texts or (),
        processors=processor_names(processors),
        keep_texts=keep_texts,
        takes=takes,
        format=form.value,
    )
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    echo(f"{output}: {size / 1e6:.1f} MB")


def push_command(
    bundle: Bundle,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made now.")] = False,
) -> None:
    """Put a bundle onto the Hugging Face hub, in one commit; exit 1 if it failed one of its gates.

    The token is the one of HF_TOKEN, or of `hf auth login`.
    """
    echo(edgeleaf.push(bundle, repository, private=private))
