"""Commands that make something: bundles, students, fused files, copies to give away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgeleaf
from edgeleaf.cli.options import (
    AsJson,
    Bundle,
    Force,
    Output,
    Processors,
    TextFiles,
    echo,
    print_json,
    print_table,
    processor_names,
)


def run_command(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as export/recipes/demo.toml.")],
    output: Output,
    processors: Processors = "",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Build a certified bundle from a recipe; continues where a stopped run left off."""
    from edgeleaf.cli import tables

    result = edgeleaf.run(recipe, output=output, processors=processor_names(processors), force=force)
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
) -> None:
    """Run a recipe up to the student, a sentence-transformers model, and print its folder."""
    echo(str(edgeleaf.distill(recipe, output=output, force=force)))


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
    preset: Annotated[str, typer.Option(help="How the file is quantised: int8, int4, fp16 or fp32.")] = "int8",
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
    output: Output,
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
) -> None:
    """Copy a bundle to give away: no unfused graphs, the student in float16, certified on texts that are not yours."""
    edgeleaf.ship(
        bundle,
        output=output,
        texts=texts or (),
        processors=processor_names(processors),
        keep_texts=keep_texts,
        takes=takes,
    )
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    echo(f"{output}: {size / 1e6:.1f} MB")
