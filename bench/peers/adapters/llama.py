"""llama.cpp's server in this process, by xllamacpp: token vectors come out; pooling, projection and norm are numpy.

Only the server's own route gives vectors of single tokens, so the times include a loopback connection and JSON.
"""

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import xllamacpp
from head import Head

SLOTS = 32


def load(path: str, *, threads: int, prompt: str) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(Path(path) / "model.gguf")
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
    parameters.n_parallel = SLOTS
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 128 * SLOTS
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    connection = http.client.HTTPConnection(urlsplit(server.listening_address).netloc)
    head = Head(Path(path))

    def ask(body: str) -> Any:
        connection.request("POST", "/embeddings", body, {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())

    def encode(texts: list[str]) -> Any:
        body = json.dumps({"content": [prompt + text for text in texts]})
        try:
            reply = ask(body)
        except ConnectionError:  # the server closes idle connections after some seconds
            connection.close()
            reply = ask(body)
        if not isinstance(reply, list):
            raise RuntimeError(reply["error"]["message"])
        rows = []
        for entry in sorted(reply, key=lambda entry: entry["index"]):
            tokens = np.asarray(entry["embedding"], dtype=np.float32)[None]
            rows.append(head(tokens, np.ones(tokens.shape[:2], np.int64)))
        return np.concatenate(rows)

    encode.server = server  # type: ignore[attr-defined]  # it ends when it is no longer referenced
    return encode
