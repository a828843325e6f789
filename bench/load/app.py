"""An adapter of bench/peers/adapters behind starlette, as one would write it: ``app.py ADAPTER ARTEFACT PORT``.

Runs in the peer's own environment, which has no edgeleaf. The encoder runs in a pool of as many threads as there are
cores, with one thread each, as in ``edgeleaf serve``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ADAPTERS = Path(__file__).resolve().parents[1] / "peers" / "adapters"


def main(adapter: str, artefact: str, port: int) -> None:
    sys.path.insert(0, str(ADAPTERS))
    encode = import_module(adapter.removesuffix(".py")).load(artefact, threads=1, prompt="")
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    async def embeddings(request: Request) -> Response:
        body = orjson.loads(await request.body())
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors: Any = await asyncio.get_running_loop().run_in_executor(pool, encode, texts)
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        answer = {"object": "list", "data": data, "model": body.get("model")}
        return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
    uvicorn.run(app, port=port, http="httptools", access_log=False, log_level="error", backlog=2048)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
