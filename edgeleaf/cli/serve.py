"""The command ``edgeleaf serve``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from edgeleaf import progress
from edgeleaf.extras import require


def serve_command(
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE",
            help="Bundle folders, fused .onnx files, installed bundles or owner/name on the hub; NAME=PATH sets "
            "another name.",
        ),
    ],
    index: Annotated[
        list[str] | None,
        typer.Option(help="A store that edgeleaf index wrote, for POST /search. May be repeated."),
    ] = None,
    host: Annotated[str, typer.Option(envvar="EDGELEAF_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="EDGELEAF_PORT", min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = 8080,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            envvar="EDGELEAF_HOST_NAME",
            help="Host name under which a proxy passes requests on; needed on loopback without a key. May be repeated.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="EDGELEAF_API_KEY", help="Key that requests must send; better set by the variable."),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(envvar="EDGELEAF_THREADS", min=0, max=1024, help="Batches encoded at once; 0: one per core."),
    ] = 0,
    max_body: Annotated[
        int, typer.Option(envvar="EDGELEAF_MAX_BODY", min=1, help="Most bytes in a request's body, unpacked.")
    ] = 2_097_152,
    max_texts: Annotated[int, typer.Option(envvar="EDGELEAF_MAX_TEXTS", min=1, help="Most texts per request.")] = 2048,
    max_characters: Annotated[
        int, typer.Option(envvar="EDGELEAF_MAX_CHARACTERS", min=1, help="Most characters per text.")
    ] = 1_000_000,
    max_waiting: Annotated[
        int,
        typer.Option(envvar="EDGELEAF_MAX_WAITING", min=1, help="Most texts that may wait; beyond that, 429."),
    ] = 4096,
    timeout: Annotated[
        float, typer.Option(envvar="EDGELEAF_TIMEOUT", min=0.1, help="Seconds in which a request must arrive.")
    ] = 30.0,
    drain: Annotated[
        float,
        typer.Option(
            envvar="EDGELEAF_DRAIN", min=0, help="Seconds after SIGTERM during which new connections are accepted."
        ),
    ] = 0.0,
    access_log: Annotated[
        bool,
        typer.Option(
            "--access-log/--no-access-log", envvar="EDGELEAF_ACCESS_LOG", help="Log one JSON line per request."
        ),
    ] = True,
) -> None:
    """Encode queries over HTTP: /v1/embeddings (OpenAI), /embed (text-embeddings-inference), /search (with --index)."""
    require("serve")
    from edgeleaf.bundle.manifest import CERTIFICATE, says_failed
    from edgeleaf.server.models import open_served
    from edgeleaf.server.run import serve
    from edgeleaf.server.settings import Limits, Settings

    if api_key is None:
        api_key = os.environ.get("EDGELEAF_API_KEY")  # click takes an empty variable for none; it is a mistake
    limits = Limits(body=max_body, texts=max_texts, text=max_characters, waiting=max_waiting, seconds=timeout)
    settings = Settings(
        host=host,
        port=port,
        host_names=tuple(one.lower() for one in host_name or []),
        api_key=api_key,
        threads=threads,
        limits=limits,
        access_log=access_log,
        drain=drain,
    )
    served = open_served(bundles, index or [])
    for one in served.values():
        if one.encoder.folder is not None and says_failed(one.encoder.folder):
            progress.say(f"{one.name}: its certificate reports FAILED; see {one.encoder.folder / CERTIFICATE}")
    if settings.is_open:
        progress.say(f"{host} can be reached from other machines and no --api-key is set: everyone there may ask")
    serve(served, settings)
