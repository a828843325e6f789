"""The command line. Standard output is the result, standard error the progress.

Exit codes: 0 done, 1 a gate failed, 2 bad input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeleaf import __version__, progress
from edgeleaf.errors import EdgeleafError, GateFailed, InputError, TextsError

app = typer.Typer(
    name="edgeleaf",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Text in, teacher-space vector out, in one certified ONNX file.",
)

Output = Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")]
Report = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write a report into this new folder. Default: print only.")
]
FROM_STDIN = "none, or -: one a line from standard input, blank lines included."
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Force = Annotated[bool, typer.Option("--force", help="Run every stage again, whatever is done before.")]
Bundle = Annotated[Path, typer.Argument(help="A bundle folder.")]
TextFiles = Annotated[
    list[Path] | None,
    typer.Option("--texts", help="Queries to check with: .txt, .tsv or .jsonl, gzipped or not. May be repeated."),
]


Processors = Annotated[
    str,
    typer.Option(
        help="Other processors to compare this one with, emulated, with commas between: x86-64-v3,armv8.0, ... or all. "
        "python -m edgeleaf.emulation --setup fetches what it takes."
    ),
]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as export/recipes/demo.toml.")],
    output: Output,
    processors: Processors = "",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build a certified bundle from a recipe; goes on where a killed run stopped."""
    from edgeleaf import pipeline, tables

    result = pipeline.run(recipe, output=output, processors=_names(processors), force=force)
    _print_json(tables.result_summary(result)) if as_json else _print(tables.result_table(result))


@app.command()
def adapt(
    bundle: Bundle,
    documents: Annotated[
        Path, typer.Option(help="Your documents: BEIR's corpus.jsonl, or .txt with a document a line; or gzipped.")
    ],
    output: Output,
    queries: Annotated[
        Path | None, typer.Option(help="Real queries, where you have some: .txt, .tsv or .jsonl, gzipped or not.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Go on distilling a bundle's student on your own text, without labels."""
    from edgeleaf import pipeline, tables

    result = pipeline.adapt(bundle, documents=documents, queries=queries, output=output, force=force)
    _print_json(tables.result_summary(result)) if as_json else _print(tables.result_table(result))


@app.command()
def distill(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as export/recipes/demo.toml.")],
    output: Output,
    force: Force = False,
) -> None:
    """Run a recipe as far as the student, a sentence-transformers model, and print its folder."""
    from edgeleaf import pipeline

    _echo(str(pipeline.distill(recipe, output=output, force=force)))


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A sentence-transformers model: local folder or hub id.")],
    output: Output,
    prompt: Annotated[
        str | None, typer.Option(help="Put before every query, inside the file. Default: the model's own query prompt.")
    ] = None,
    prompt_name: Annotated[
        str | None, typer.Option(help="The same, by its name among the model's own prompts; not with --prompt.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Window in tokens. Default: the model's own.")] = None,
    texts: TextFiles = None,
    preset: Annotated[str, typer.Option(help="int8, int4, fp16 or fp32: how it is made small.")] = "int8",
    processors: Processors = "",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make the fused, quantised, checked bundle of an existing model, without distilling."""
    from edgeleaf import pipeline, tables

    result = pipeline.export(
        model,
        output=output,
        prompt=prompt,
        prompt_name=prompt_name,
        max_length=max_length,
        texts=texts or (),
        preset=preset,
        processors=_names(processors),
        force=force,
    )
    _print_json(tables.result_summary(result)) if as_json else _print(tables.result_table(result))


@app.command()
def check(
    bundle: Bundle,
    texts: TextFiles = None,
    collection: Annotated[
        list[Path] | None,
        typer.Option(help="A folder in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv. May be repeated."),
    ] = None,
    sts: Annotated[
        list[Path] | None,
        typer.Option(help="Scored pairs: a .tsv with columns score, sentence1, sentence2. May be repeated."),
    ] = None,
    processors: Processors = "",
    output: Report = None,
    as_json: Json = False,
) -> None:
    """Measure a bundle against its teacher again; exit 1 names the gates it fails. The bundle stays as it is."""
    from edgeleaf import pipeline, tables

    certificate = pipeline.check(
        bundle,
        texts=texts or (),
        collections=collection or (),
        pairs=sts or (),
        processors=_names(processors),
        output=output,
    )
    if as_json:
        _echo(certificate.to_json().rstrip("\n"))
    else:
        _print(tables.certificate_table(certificate))
        page = "nothing was written; -o DIR writes certificate.json and certificate.html"
        _echo(page if output is None else str(output / "certificate.html"))
    if not certificate.passed:
        raise GateFailed("; ".join(certificate.failures))


@app.command()
def bench(
    bundle: Bundle,
    repeats: Annotated[int | None, typer.Option(min=1, help="Timed calls for each length.")] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Only the fused file: no teacher, no torch.")] = False,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="Tokenizer, encoder and the rest instead, beside other tokenizers.")
    ] = False,
    compare: Annotated[
        Path | None, typer.Option(help="A latency.json of another bundle or machine, to print beside this one.")
    ] = None,
    output: Report = None,
    as_json: Json = False,
) -> None:
    """Measure a bundle's latency from the string on this machine, beside its teacher and its torch student."""
    from edgeleaf import breakdown as parts
    from edgeleaf import latency, pipeline

    if breakdown and alone:
        raise InputError("--breakdown measures no teacher anyway; leave --alone out")
    if compare is not None and (breakdown or as_json):
        raise InputError("--compare prints a table of two latency.json; leave --breakdown and --json out")
    other = None if compare is None else latency.read(compare)
    if breakdown:
        report = pipeline.breakdown(bundle, repeats=repeats, output=output)
    else:
        report = pipeline.bench(bundle, repeats=repeats, alone=alone, output=output)
    if as_json:
        _print_json(report)
        return
    _print(parts.table(report) if breakdown else latency.table(report))
    if other is not None:
        _print(latency.comparison(report, other, names=(str(bundle), str(compare))))
    if output is not None:
        _echo(str(output / ("breakdown.json" if breakdown else "latency.json")))


@app.command()
def fuse(
    tokenizer: Annotated[Path, typer.Argument(help="A tokenizer.json.")],
    model: Annotated[Path, typer.Argument(help="An ONNX encoder: input_ids, attention_mask, maybe token_type_ids.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls, last or max, for an encoder that gives token vectors.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=3, help="Window in tokens. Default: the tokenizer's own.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="Put before every text, inside the file.")] = "",
    dims: Annotated[int | None, typer.Option(min=1, help="Cut vectors to so many numbers (Matryoshka).")] = None,
    as_json: Json = False,
) -> None:
    """Put a tokenizer into an ONNX encoder that you have already; exit 1 if a token id would differ."""
    from edgeleaf import fused_file, tables

    made = fused_file.fuse_file(
        tokenizer, model, output, pooling=pooling, max_length=max_length, prompt=prompt, dim=dims
    )
    _print_json(tables.fused_summary(made)) if as_json else _print(tables.fused_table(made))


@app.command()
def tokenize(
    file: Annotated[Path, typer.Argument(help="A fused .onnx file or a bundle folder.")],
    texts: Annotated[list[str] | None, typer.Argument(help=f"Texts; {FROM_STDIN}")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, to name and to compare tokens. Default: the bundle's own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the tokens that a fused file cuts texts into; exit 1 if `tokenizers` gives others."""
    from edgeleaf import fused_file, tables

    rows = fused_file.tokenize(file, _given(texts), tokenizer_json=tokenizer)
    for row in rows:
        _echo(json.dumps(asdict(row), ensure_ascii=False) if as_json else tables.token_lines(row))
    if different := [row.text for row in rows if row.equal is False]:
        raise GateFailed(f"{len(different)} of {len(rows)} texts: `tokenizers` gives other ids, {different[0][:60]!r}")


@app.command()
def encode(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder or a fused .onnx file.")],
    texts: Annotated[list[str] | None, typer.Argument(help=f"Texts; {FROM_STDIN}")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a .npy file instead.")] = None,
    dims: Annotated[int | None, typer.Option(min=1, help="Cut vectors to so many numbers (Matryoshka).")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Encode queries: a JSON line {"text", "embedding"} for each, or float32 [n, dim] with -o FILE.npy."""
    import numpy as np

    from edgeleaf.bundle import says_failed, write_npy
    from edgeleaf.encoder import QueryEncoder

    if output is not None and output.suffix != ".npy":
        raise TextsError(f"{output}: vectors are written as .npy; give a name that ends in it")
    inputs = _given(texts)
    encoder = QueryEncoder.load(bundle, dims=dims, threads=threads)
    if says_failed(bundle):
        progress.say(f"{bundle}: its certificate says FAILED; see: edgeleaf info {bundle}")
    vectors = encoder.encode(inputs)
    if output is not None:
        write_npy(output, vectors)
        return
    for text, vector in zip(inputs, vectors, strict=True):
        numbers = [float(np.format_float_positional(value, precision=7)) for value in vector]
        _echo(json.dumps({"text": text, "embedding": numbers}, ensure_ascii=False))


@app.command()
def index(
    bundle: Bundle,
    documents: Annotated[Path, typer.Argument(help="BEIR's corpus.jsonl, or .txt with a document a line; or gzipped.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the index.")],
    pca: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Shorten vectors to so many numbers, fewer than the space has, along the documents' principal axes.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an index that is there.")] = False,
) -> None:
    """Encode documents with the bundle's teacher, for the bundle's queries to search."""
    from edgeleaf import pipeline

    made = pipeline.index(bundle, documents, output=output, pca_dims=pca, force=force)
    numbers = made.vectors.shape[1]
    _echo(f"{output}: {len(made.documents)} documents, {numbers} numbers each, space {made.space.id}")


@app.command()
def search(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder or a fused .onnx file.")],
    index: Annotated[Path, typer.Argument(help="A folder that edgeleaf index wrote.")],
    queries: Annotated[list[str] | None, typer.Argument(help=f"Queries; {FROM_STDIN}")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Documents for each query.")] = 5,
    as_json: Json = False,
) -> None:
    """Find the documents nearest to each query, without the teacher."""
    from edgeleaf import pipeline

    asked = _given(queries)
    for query, hits in zip(asked, pipeline.search(bundle, index, asked, k=k), strict=True):
        if as_json:
            _echo(json.dumps({"query": query, "hits": [asdict(hit) for hit in hits]}, ensure_ascii=False))
            continue
        _echo(query)
        for hit in hits:
            text = " ".join(hit.text.split())
            _echo(f"  {hit.score:.3f}  {hit.id}  {text[:96]}{'…' if len(text) > 96 else ''}")


@app.command()
def ship(
    bundle: Bundle,
    output: Output,
    texts: TextFiles = None,
    processors: Processors = "",
    keep_texts: Annotated[
        bool,
        typer.Option("--keep-texts", help="Leave the bundle's own held-out texts in the copy, and its certificate."),
    ] = False,
) -> None:
    """Copy a bundle to give away: no unfused graphs, its student in float16, certified on texts that are not yours."""
    from edgeleaf import pipeline

    pipeline.ship(bundle, output=output, texts=texts or (), processors=_names(processors), keep_texts=keep_texts)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    _echo(f"{output}: {size / 1e6:.1f} MB")


@app.command()
def info(bundle: Bundle, as_json: Json = False) -> None:
    """Say what a bundle is: its vector space, files, tokenizer, quantisation, alignment; checks every hash."""
    from edgeleaf import tables
    from edgeleaf.bundle import CERTIFICATE, Manifest
    from edgeleaf.certify import Certificate

    manifest = Manifest.read(bundle)
    manifest.verify(bundle)
    certificate = Certificate.read(bundle / CERTIFICATE) if (bundle / CERTIFICATE).is_file() else None
    if certificate and not certificate.passed:
        progress.say(f"{bundle}: its certificate says FAILED: {'; '.join(certificate.failures)}")
    if as_json:
        _print_json(tables.bundle_summary(manifest, certificate))
        return
    _print(tables.bundle_table(manifest, bundle))
    if certificate:
        _print(tables.certificate_table(certificate))


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        _echo(f"edgeleaf {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; every error a user can cause is one line on standard error."""
    progress.show()
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except EdgeleafError as error:
        sys.stderr.write(f"edgeleaf: {error}\n")
        sys.exit(error.exit_code)
    except _Stopped:
        sys.stderr.write("edgeleaf: stopped; run, adapt, distill and export go on from here when given again\n")
        sys.exit(130)
    except OSError as error:
        sys.stderr.write(f"edgeleaf: {error}\n")
        sys.exit(2)


class _Stopped(BaseException):
    """Ctrl-C, under a name that neither click nor a library takes for its own."""


def _stop(*_: object) -> None:
    raise _Stopped


def _names(processors: str) -> tuple[str, ...]:
    """Processors from ``a,b``; all that can be emulated from ``all``."""
    from edgeleaf.emulation import PROCESSORS

    return tuple(PROCESSORS) if processors == "all" else tuple(filter(None, map(str.strip, processors.split(","))))


def _given(texts: list[str] | None) -> list[str]:
    """Texts of the command line, or those of standard input, one a line."""
    if texts and texts != ["-"]:
        return texts
    data = b"" if sys.stdin.isatty() and not texts else sys.stdin.buffer.read()
    if not data:
        raise TextsError("no text given; name texts, or pipe them in, one a line")
    try:
        return data.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise TextsError(f"standard input is not UTF-8 at byte {error.start}") from None


def _print(renderable: Any) -> None:
    """Print a table, as one text: ``rich`` itself takes a reader that has gone away for an error."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 120)
    with console.capture() as captured:
        console.print(renderable)
    _echo(captured.get().rstrip("\n"))


def _print_json(value: Any) -> None:
    _echo(json.dumps(value, indent=2, ensure_ascii=False))


def _echo(text: str) -> None:
    """Print a line; a reader that has gone away, such as ``head``, is no error."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
