"""llama.cpp's own server, from xllamacpp: ``llama_server.py FOLDER PORT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import xllamacpp

SLOTS = 32

parameters = xllamacpp.CommonParams()
parameters.model.path = str(Path(sys.argv[1]) / "model.gguf")
parameters.embedding = True
parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
parameters.n_parallel = SLOTS
parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 128 * SLOTS
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
parameters.port = int(sys.argv[2])
server = xllamacpp.Server(parameters)
signal.pause()
