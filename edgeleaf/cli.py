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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeleaf import __version__, progress
from edgeleaf.errors import EdgeleafError, GateFailed, TextsError

if TYPE_CHECKING:
    from edgeleaf.certify import Certificate
    from edgeleaf.shipping import Result

app = typer.Typer(
    name="edgeleaf",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Text in, teacher-space vector out, in one certified ONNX file.",
)

Output = Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Force = Annotated[bool, typer.Option("--force", help="Run every stage again, whatever is done before.")]
Bundle = Annotated[Path, typer.Argument(help="A bundle folder.")]
TextFiles = Annotated[
    list[Path] | None,
    typer.Option("--texts", help="Queries to check with: .txt, .tsv or .jsonl, gzipped or not. May be repeated."),
]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as export/recipes/demo.toml.")],
    output: Output,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build a certified bundle from a recipe; goes on where a killed run stopped."""
    from edgeleaf import pipeline

    _print_result(pipeline.run(recipe, output=output, force=force), as_json)


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
    max_length: Annotated[int | None, typer.Option(help="Window in tokens. Default: the model's own.")] = None,
    texts: TextFiles = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make the fused, quantised, checked bundle of an existing model, without distilling."""
    from edgeleaf import pipeline

    result = pipeline.export(
        model,
        output=output,
        prompt=prompt,
        max_length=max_length,
        texts=texts or (),
        force=force,
    )
    _print_result(result, as_json)


@app.command()
def check(bundle: Bundle, texts: TextFiles = None, as_json: Json = False) -> None:
    """Measure a bundle against its teacher again; exit 1 names the gates it fails."""
    from edgeleaf import pipeline

    certificate = pipeline.check(bundle, texts=texts or ())
    if as_json:
        _echo(certificate.to_json().rstrip("\n"))
    else:
        _print(_certificate_table(certificate))
        _echo(f"{bundle / 'certificate.html'}")
    if not certificate.passed:
        raise GateFailed("; ".join(certificate.failures))


@app.command()
def bench(
    bundle: Bundle,
    repeats: Annotated[int | None, typer.Option(min=1, help="Timed calls for each length.")] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Only the fused file: no teacher, no torch.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a bundle's latency from the string on this machine, beside its teacher and its torch student."""
    from edgeleaf import latency, pipeline

    report = pipeline.bench(bundle, repeats=repeats, alone=alone)
    if as_json:
        _print_json(report)
    else:
        _print(latency.table(report))


@app.command()
def encode(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder or a fused .onnx file.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; none: one a line from standard input.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a .npy file instead.")] = None,
    dims: Annotated[int | None, typer.Option(min=1, help="Cut vectors to so many numbers (Matryoshka).")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Encode queries: a JSON line {"text", "embedding"} for each, or float32 [n, dim] with -o FILE.npy."""
    import numpy as np

    from edgeleaf.bundle import write_npy
    from edgeleaf.encoder import QueryEncoder

    if output is not None and output.suffix != ".npy":
        raise TextsError(f"{output}: vectors are written as .npy; give a name that ends in it")
    encoder = QueryEncoder.load(bundle, dims=dims, threads=threads)
    inputs = list(texts) if texts else _standard_input()
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
) -> None:
    """Encode documents with the bundle's teacher, for the bundle's queries to search."""
    from edgeleaf import pipeline

    made = pipeline.index(bundle, documents, output=output)
    _echo(f"{output}: {len(made.documents)} documents, space {made.space.id}")


@app.command()
def search(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder or a fused .onnx file.")],
    index: Annotated[Path, typer.Argument(help="A folder that edgeleaf index wrote.")],
    queries: Annotated[list[str] | None, typer.Argument(help="Queries; none: one a line from standard input.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Documents for each query.")] = 5,
    as_json: Json = False,
) -> None:
    """Find the documents nearest to each query, without the teacher."""
    from edgeleaf import pipeline

    asked = list(queries) if queries else _standard_input()
    for query, hits in zip(asked, pipeline.search(bundle, index, asked, k=k), strict=True):
        if as_json:
            _echo(json.dumps({"query": query, "hits": [asdict(hit) for hit in hits]}, ensure_ascii=False))
            continue
        _echo(query)
        for hit in hits:
            text = " ".join(hit.text.split())
            _echo(f"  {hit.score:.3f}  {hit.id}  {text[:96]}{'…' if len(text) > 96 else ''}")


@app.command()
def info(bundle: Bundle, as_json: Json = False) -> None:
    """Say what a bundle is: its vector space, files, tokenizer, quantisation, alignment; checks every hash."""
    from rich.table import Table

    from edgeleaf.bundle import CERTIFICATE, Manifest

    manifest = Manifest.read(bundle)
    manifest.verify(bundle)
    if as_json:
        _print_json(asdict(manifest))
        return
    table = Table(show_header=False, title=str(bundle))
    for name, value in (
        ("vector space", manifest.space.id),
        *((f"  {key}", value) for key, value in asdict(manifest.space).items()),
        ("recipe", manifest.recipe),
        *((f"student {key}", value) for key, value in manifest.student.items()),
        *((f"tokenizer {key}", value) for key, value in manifest.tokenizer.items()),
        *((f"quantization {key}", value) for key, value in manifest.quantization.items()),
        *((f"file {name}", f"{(bundle / name).stat().st_size / 1e6:.2f} MB") for name in manifest.files),
    ):
        table.add_row(name, json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value))
    _print(table)
    if (bundle / CERTIFICATE).is_file():
        from edgeleaf.certify import Certificate

        _print(_certificate_table(Certificate.read(bundle / CERTIFICATE)))


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
        sys.stderr.write("edgeleaf: stopped; run, distill and export go on from here when they are given again\n")
        sys.exit(130)
    except OSError as error:
        sys.stderr.write(f"edgeleaf: {error}\n")
        sys.exit(2)


class _Stopped(BaseException):
    """Ctrl-C, under a name that neither click nor a library takes for its own."""


def _stop(*_: object) -> None:
    raise _Stopped


def _standard_input() -> list[str]:
    if sys.stdin.isatty():
        raise TextsError("no text given; name texts, or pipe them in, one a line")
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise TextsError(f"standard input is not UTF-8 at byte {error.start}") from None


def _print_result(result: Result, as_json: bool) -> None:
    if as_json:
        _print_json(_summary(result))
        return
    from rich.table import Table

    summary = _summary(result)
    table = Table(show_header=False, title=f"edgeleaf: {result.manifest.recipe}")
    before, after = summary["alignment"]["student"], summary["alignment"]["fused"]
    fused, teacher = summary["p50_ms"]["fused"], summary["p50_ms"]["teacher"]
    beside = f"; teacher {teacher:.1f} ms ({teacher / fused:.0f} times)" if fused and teacher else ""
    for name, value in (
        ("file", f"{summary['file_mb']:.1f} MB, tokenizer included"),
        ("vectors", f"{summary['dim']} numbers, space {summary['space']}"),
        (
            "cosine to the teacher",
            f"{before['cosine_mean']:.4f} student, {after['cosine_mean']:.4f} quantised and fused",
        ),
        ("overlap@10", f"{before['overlap_at_10']:.3f} student, {after['overlap_at_10']:.3f} quantised and fused"),
        ("token mismatches", f"{summary['token_mismatches']} of {summary['token_texts']:,} texts"),
        (
            f"p50, {summary['tokens']} tokens, {summary['threads']} thread",
            f"{fused:.2f} ms from the string{beside}",
        ),
        ("verdict", f"{'PASSED' if result.certificate.passed else 'FAILED'}, {len(result.certificate.verdicts)} gates"),
        ("encoder", str(result.bundle / "query_encoder.onnx")),
        ("certificate", str(result.bundle / "certificate.html")),
    ):
        table.add_row(name, value)
    _print(table)


def _summary(result: Result) -> dict[str, Any]:
    from edgeleaf import latency

    certificate = result.certificate
    threads = min(result.latency["settings"]["threads"])
    tokens = min(result.latency["settings"]["lengths"], key=lambda length: abs(length - 16))
    rungs = {name: certificate.rung(name) for name in ("student", "onnx_fp32", "onnx_int8", "fused")}
    return {
        "bundle": str(result.bundle),
        "space": result.manifest.space.id,
        "dim": result.manifest.space.dim,
        "file_mb": certificate.sizes_mb["query_encoder.onnx"],
        "alignment": {
            name: {"cosine_mean": rung.teacher_cosine.mean, "overlap_at_10": rung.overlap_at_10}
            for name, rung in rungs.items()
        },
        "token_texts": certificate.parity.tried,
        "token_mismatches": certificate.parity.mismatches,
        "tokens": tokens,
        "threads": threads,
        "p50_ms": {
            name: latency.p50_ms(result.latency, system=name, tokens=tokens, threads=threads)
            for name in ("fused", "student", "teacher")
        },
        "passed": certificate.passed,
    }


def _certificate_table(certificate: Certificate) -> Any:
    from rich.table import Table

    table = Table(title=f"{'PASSED' if certificate.passed else 'FAILED'}: {certificate.space['id']}")
    for column in ("", "cosine to teacher", "p05", "p01", "min", "overlap@10"):
        table.add_column(column, justify="right" if column else "left")
    for rung in certificate.rungs:
        cosine = rung.teacher_cosine
        numbers = (cosine.mean, cosine.p05, cosine.p01, cosine.min, rung.overlap_at_10)
        table.add_row(rung.title, *(f"{number:.4f}" for number in numbers))
    table.caption = "\n".join(verdict.line for verdict in certificate.verdicts)
    return table


def _print(renderable: Any) -> None:
    from rich.console import Console

    console = Console()
    console.print(renderable) if console.is_terminal else Console(width=120).print(renderable)


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
