"""Commands that use a bundle: encode, index, search, describe, tokenize."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgeleaf import progress
from edgeleaf.cli.options import (
    FROM_STDIN,
    AsJson,
    Bundle,
    Engine,
    Shards,
    ShardTexts,
    Workers,
    cluster_of,
    echo,
    given_texts,
    print_json,
    print_table,
)
from edgeleaf.errors import GateFailed, TextsError

PLACE = (
    "a folder, or sqlite:///docs.db, postgresql://user:password@host/database, usearch:///folder, milvus:///docs.db, "
    "milvus://host:19530/collection; or s3://bucket/folder, to which a folder is copied."
)


Loaded = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="A bundle folder or a fused .onnx file; or the name of an installed bundle, or owner/name on the hub.",
    ),
]


class Dtype(StrEnum):
    """How the numbers of vectors are kept."""

    float16 = "float16"
    int8 = "int8"
    bit = "bit"


def encode_command(
    bundle: Loaded,
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
    from edgeleaf.bundle.manifest import CERTIFICATE, says_failed
    from edgeleaf.files import write_npy

    if output is not None and output.suffix != ".npy":
        raise TextsError(f"{output}: vectors are written as .npy; give a name that ends in it")
    inputs = given_texts(texts)
    encoder = QueryEncoder.load(bundle, dims=dims, threads=threads)
    if encoder.folder is not None and says_failed(encoder.folder):
        progress.say(f"{bundle}: its certificate reports FAILED; see {encoder.folder / CERTIFICATE}")
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
        str,
        typer.Argument(
            help="A folder of Markdown and text files; .jsonl as in BEIR, .csv, .tsv, .parquet, or .txt with one "
            "document per line, also at a URL such as s3://bucket/file; or - for standard input."
        ),
    ],
    output: Annotated[str, typer.Option("-o", "--output", help=f"{PLACE} One that is there is brought up to date.")],
    dtype: Annotated[
        Dtype | None, typer.Option(help="How numbers are kept: float16, int8 or bit. Default: float16.")
    ] = None,
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
            "--passages",
            help="Cut documents longer than the teacher's window into passages: ID#1, ID#2, ... Files of a folder "
            "always are.",
        ),
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(help="Columns of a file, if they have other names: text=NAME,id=NAME,title=NAME."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there by a new store.")] = False,
    engine: Engine = "local",
    shards: Shards = None,
    workers: Workers = None,
    shard: ShardTexts = None,
    as_json: AsJson = False,
) -> None:
    """Encode documents with the bundle's teacher, for the bundle's queries to search; only what has changed."""
    from edgeleaf.pipeline.index import make_index
    from edgeleaf.texts.inputs import columns_named

    cluster = cluster_of(engine, shards, workers, shard)
    made = make_index(
        bundle,
        documents,
        output=output,
        dtype=None if dtype is None else dtype.value,
        pca_dims=pca,
        passages=passages,
        columns=columns_named(columns),
        force=force,
        cluster=cluster,
    )
    store, counts = made.index, made.counts
    if as_json:
        print_json(made.plain())
        return
    cut = f", {counts.cut} cut at {made.window} tokens" if counts.cut else ""
    parts = f" in {counts.passages} passages" if counts.passages != counts.documents else ""
    updated = f", {counts.updated} updated" if counts.updated else ""
    echo(
        f"{made.place}: {counts.documents} documents{parts}, {store.layout.dims} numbers each, "
        f"space {store.space.id}{cut}; {counts.encoded} encoded{updated}, {counts.unchanged} unchanged, "
        f"{counts.deleted} deleted"
    )


def search_command(
    bundle: Loaded,
    index: Annotated[str, typer.Argument(help=f"What edgeleaf index wrote: {PLACE}")],
    queries: Annotated[list[str] | None, typer.Argument(help=f"Queries; {FROM_STDIN}")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Documents per query.")] = 5,
    where: Annotated[
        str | None, typer.Option(help="Only among documents whose metadata fit: \"lang = 'en' and year >= 2020\".")
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Also search for the queries' words: part numbers, names, error codes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the documents nearest to each query, without the teacher."""
    from edgeleaf.pipeline.index import search_index as nearest

    asked = given_texts(queries)
    found = nearest(bundle, index, asked, k=k, where=where, hybrid=hybrid)
    for query, hits in zip(asked, found, strict=True):
        if as_json:
            plain = [hit.plain(hybrid=hybrid) for hit in hits]
            echo(json.dumps({"query": query, "hits": plain}, ensure_ascii=False))
            continue
        echo(query)
        for hit in hits:
            text = " ".join(hit.text.split())
            scores = f"{hit.score:.3f}"
            if hybrid:
                both = (hit.vector_score, hit.words_score)
                parts = ["    -" if score is None else f"{score:5.{3 - place}f}" for place, score in enumerate(both)]
                scores = f"{hit.score:.4f}  vector {parts[0]}  words {parts[1]}"
            echo(f"  {scores}  {hit.id}  {text[:96]}{'…' if len(text) > 96 else ''}")


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
