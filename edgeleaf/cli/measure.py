"""Commands that measure a bundle: how close it is to its teacher, and its latency."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgeleaf
from edgeleaf.cli.options import (
    AsJson,
    Bundle,
    Processors,
    Report,
    TextFiles,
    echo,
    print_json,
    print_table,
    processor_names,
)
from edgeleaf.errors import GateFailed, InputError


def check_command(
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
    as_json: AsJson = False,
) -> None:
    """Measure a bundle against its teacher again; exit 1 if it fails a gate. The bundle is not changed."""
    from edgeleaf.cli import tables

    certificate = edgeleaf.check(
        bundle,
        texts=texts or (),
        collections=collection or (),
        pairs=sts or (),
        processors=processor_names(processors),
        output=output,
    )
    if as_json:
        echo(certificate.to_json().rstrip("\n"))
    else:
        print_table(tables.certificate_table(certificate))
        page = "nothing was written; -o DIR writes certificate.json and certificate.html"
        echo(page if output is None else str(output / "certificate.html"))
    if not certificate.passed:
        raise GateFailed("; ".join(certificate.failures))


def bench_command(
    bundle: Bundle,
    repeats: Annotated[int | None, typer.Option(min=1, help="Timed calls per length.")] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Time only the fused file: no teacher, no torch.")] = False,
    compare: Annotated[
        Path | None, typer.Option(help="A latency.json of another bundle or machine, to print side by side.")
    ] = None,
    output: Report = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle's latency from the string on this machine, beside its teacher and its torch student."""
    from edgeleaf.latency.report import comparison, latency_table, read_latency

    if compare is not None and as_json:
        raise InputError("--compare prints a table of two latency.json files; leave --json out")
    other = None if compare is None else read_latency(compare)
    report = edgeleaf.bench(bundle, repeats=repeats, alone=alone, output=output)
    if as_json:
        print_json(report)
        return
    print_table(latency_table(report))
    if other is not None:
        print_table(comparison(report, other, names=(str(bundle), str(compare))))
    if output is not None:
        echo(str(output / "latency.json"))
