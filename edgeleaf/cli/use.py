"""Commands that use a bundle: encode, index, search, describe, tokenize."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeleaf import progress
from edgeleaf.cli.options import FROM_STDIN, AsJson, Bundle, echo, given_texts, print_json, print_table
from edgeleaf.errors import GateFailed, TextsError


def encode_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder or a fused .onnx file.")],
    texts: Annotated[list[str] | None, typer.Argument(help=f"Texts; {FROM_STDIN}")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write a .npy file instead of printing.")
    ] = None,
    dims: Annotated[int | None, typer.Option(min=1, help="Cut vectors to this many numbers (Matryoshka).")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
) -> None:
    """Encode queries: one JSON line {"text", "embedding"} per query, or float32 [n, dim] with -o FILE.npy."""
    import numpy as np

    from edgeleaf.bundle.encoder import QueryEncoder
    from edgeleaf.bundle.manifest import says_failed
    from edgeleaf.files import write_npy

    if output is not None and output.suffix != ".npy":
        raise TextsError(f"{output}: vectors are written as .npy; give a name that ends in it")
    inputs = given_texts(texts)
    encoder = QueryEncoder.load(bundle, dims=dims, threads=threads)
    if says_failed(bundle):
        progress.say(f"{bundle}: its certificate reports FAILED; see: edgeleaf info {bundle}")
    vectors = encoder.encode(inputs)
    if output is not None:
        write_npy(output, vectors)
        return
    for text, vector in zip(inputs, vectors, strict=True):
        numbers = [float(np.format_float_positional(value, precision=7)) for value in vector]
        echo(json.dumps({"text": text, "embedding": numbers}, ensure_ascii=False))


def index_command(
    bundle: Bundle,
    documents: Annotated[
        Path, typer.Argument(help="BEIR's corpus.jsonl, or .txt with one document per line; may be gzipped.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the index.")],
    pca: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Shorten vectors to this many numbers along the documents' principal axes; fewer than the space has.",
        ),
    ] = None,
    passages: Annotated[
        bool,
        typer.Option(
            "--passages", help="Cut documents longer than the teacher's window into passages: ID#1, ID#2, ..."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing index.")] = False,
) -> None:
    """Encode documents with the bundle's teacher, for the bundle's queries to search."""
    from edgeleaf.pipeline.index import make_index

    made = make_index(bundle, documents, output=output, pca_dims=pca, passages=passages, force=force)
    opened = made.index
    cut = f", {made.cut} cut at {made.window} tokens" if made.cut else ""
    echo(
        f"{output}: {len(opened.documents)} documents, {opened.vectors.shape[1]} numbers each, "
        f"space {opened.space.id}{cut}"
    )


def search_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder or a fused .onnx file.")],
    index: Annotated[Path, typer.Argument(help="A folder that edgeleaf index wrote.")],
    queries: Annotated[list[str] | None, typer.Argument(help=f"Queries; {FROM_STDIN}")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Documents per query.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Find the documents nearest to each query, without the teacher."""
    from edgeleaf.pipeline.index import search_index as nearest

    asked = given_texts(queries)
    for query, hits in zip(asked, nearest(bundle, index, asked, k=k), strict=True):
        if as_json:
            echo(json.dumps({"query": query, "hits": [asdict(hit) for hit in hits]}, ensure_ascii=False))
            continue
        echo(query)
        for hit in hits:
            text = " ".join(hit.text.split())
            echo(f"  {hit.score:.3f}  {hit.id}  {text[:96]}{'…' if len(text) > 96 else ''}")


def info_command(bundle: Bundle, as_json: AsJson = False) -> None:
    """Describe a bundle: vector space, files, tokenizer, quantisation, alignment; checks every hash."""
    from edgeleaf.bundle.manifest import CERTIFICATE, Manifest
    from edgeleaf.certify.certificate import Certificate
    from edgeleaf.cli import tables

    manifest = Manifest.read(bundle)
    manifest.verify(bundle)
    certificate = Certificate.read(bundle / CERTIFICATE) if (bundle / CERTIFICATE).is_file() else None
    if certificate and not certificate.passed:
        progress.say(f"{bundle}: its certificate reports FAILED: {'; '.join(certificate.failures)}")
    if as_json:
        print_json(tables.bundle_summary(manifest, certificate))
        return
    print_table(tables.bundle_table(manifest, bundle))
    if certificate:
        print_table(tables.certificate_table(certificate))


def tokenize_command(
    file: Annotated[Path, typer.Argument(help="A fused .onnx file or a bundle folder.")],
    texts: Annotated[list[str] | None, typer.Argument(help=f"Texts; {FROM_STDIN}")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, to name tokens and compare ids. Default: the bundle's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the tokens that a fused file cuts texts into; exit 1 if `tokenizers` gives other ids."""
    from edgeleaf.cli import tables
    from edgeleaf.graph import standalone

    rows = standalone.tokenize(file, given_texts(texts), tokenizer_json=tokenizer)
    for row in rows:
        echo(json.dumps(asdict(row), ensure_ascii=False) if as_json else tables.token_lines(row))
    if different := [row.text for row in rows if row.equal is False]:
        raise GateFailed(f"{len(different)} of {len(rows)} texts: `tokenizers` gives other ids, {different[0][:60]!r}")
