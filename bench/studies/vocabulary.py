"""What a trimmed vocabulary saves: size, load time and memory of a multilingual file, whole and with fewer tokens.

    EDGELEAF_DATA=... python -m bench.studies.vocabulary [--work DIR]

The encoder has multilingual-e5-small's configuration (12 layers, 384 numbers, 250,037 rows of tokens) with random
weights, since only its size and speed are measured. Its tokenizer is a Unigram model with XLM-R's settings that
:mod:`bench.studies.tokenizer_vocabularies` trains on texts in 380 languages. The last columns count questions that
contain a removed token.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from bench.studies.tokenizer_texts import tagged
from bench.studies.tokenizer_vocabularies import unigram

ROWS, WINDOW = 250_037, 128
CALIBRATION = 300
LANGUAGES = ("en", "de", "zh")
QUERY = "how do i track a parcel that is lost"
MEASURE = """
import resource, sys, time
from edgeleaf.bundle.session import session
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before, started = resident(), time.process_time()
opened = session(sys.argv[1], threads=1)
loaded, grown = time.process_time() - started, resident() - before
import numpy as np
query = np.array([sys.argv[2]], dtype=object)
times = []
for _ in range(60):
    started = time.thread_time()
    opened.run(None, {"text": query})
    times.append(time.thread_time() - started)
print(loaded * 1e3, sorted(times)[len(times) // 2] * 1e3, grown / 1e6)
"""


def write_model(folder: Path, tokenizer: dict[str, Any]) -> Path:
    """Write a sentence-transformers model of multilingual-e5-small's configuration with random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import XLMRobertaConfig, XLMRobertaModel

    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=ROWS,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=514,
    )
    encoder = folder / "encoder"
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(encoder)
    (encoder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    kinds = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    (encoder / "tokenizer_config.json").write_text(json.dumps(kinds | special), encoding="utf-8")
    parts = [Transformer(str(encoder), max_seq_length=WINDOW), Pooling(384, "mean"), Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def fused(model: Path, file: Path, calibration: list[str]) -> float:
    """Write a model's fused int8 file; return the tokenizer's share of it in MB."""
    from edgeleaf.graph.builder import serialize
    from edgeleaf.graph.export import export_onnx
    from edgeleaf.graph.fuse import fuse
    from edgeleaf.graph.quantization.quantize import quantize
    from edgeleaf.graph.tokenizers import as_model
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    settings = (model / "tokenizer.json").read_text(encoding="utf-8")
    ids = [encoding.ids for encoding in reference_tokenizer(settings, WINDOW).encode_batch(calibration)]
    encoder = quantize(export_onnx(model), ids).model
    file.write_bytes(serialize(fuse(encoder, settings, max_length=WINDOW, metadata={})))
    return as_model(settings, max_length=WINDOW).ByteSize() / 1e6


def main() -> int:
    """Print the table."""
    from edgeleaf.models.loading import load_sentence_transformer
    from edgeleaf.models.vocabulary import trim
    from edgeleaf.texts.words import words_of
    from edgeleaf.training.student import save_student

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for models and files; default: a temporary one")
    options = parser.parse_args()
    if not (found := os.environ.get("EDGELEAF_DATA")):
        sys.stderr.write("EDGELEAF_DATA is not set: point it to the folder with texts/ and unicode/\n")
        return 2
    data = Path(found)
    asked = {
        language: list(tagged(data / "unicode" / "multilingual-questions.tsv.gz", (language,)))
        for language in LANGUAGES
    }
    queries = data / "texts" / "queries.tsv.gz"
    choices: dict[str, Callable[[], Iterable[str]] | None] = {
        "whole": None,
        "`--languages en,de,zh`": lambda: words_of(["en", "de", "zh"]),
        "`--languages en`": lambda: words_of(["en"]),
        "`--vocab-from`, 321,000 English queries": lambda: tagged(queries, None),
    }
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        name, tokenizer = next(unigram(data))
        source = work / "model"
        if not source.is_dir():
            write_model(work, tokenizer)
        sys.stderr.write(f"tokenizer: {name} pieces\n")
        calibration = list(islice(tagged(queries, None), CALIBRATION))
        head = ["tokens", "", "file, MB", "tokenizer, MB", "load, ms", "memory, MB", "p50, ms"]
        head += [f"changed, {language}" for language in LANGUAGES]
        sys.stdout.write(f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
        for label, texts in choices.items():
            model = load_sentence_transformer(source, max_length=WINDOW).to("cpu")
            whole = model.tokenizer.backend_tokenizer
            rows, changed = ROWS, ["" for _ in LANGUAGES]
            if texts is not None:
                trim(model, texts(), [], name=label)
                rows = len(model.tokenizer)
                left = set(model.tokenizer.get_vocab())
                changed = [share(whole, left, questions) for questions in asked.values()]
            folder = work / f"row-{rows}"
            save_student(model, folder)
            tokenizer_mb = fused(folder, work / "file.onnx", calibration)
            size = (work / "file.onnx").stat().st_size / 1e6
            loads = [measured(work / "file.onnx") for _ in range(5)]
            load, p50, memory = (statistics.median(values) for values in zip(*loads, strict=True))
            cells = [f"{rows:,}", label, f"{size:.1f}", f"{tokenizer_mb:.2f}", f"{load:.0f}", f"{memory:.0f}"]
            sys.stdout.write(f"| {' | '.join([*cells, f'{p50:.2f}', *changed])} |\n")
            sys.stdout.flush()
    return 0


def share(whole: Any, left: set[str], texts: list[str]) -> str:
    """Return how many of some texts contain a token that is not left."""
    changed = sum(not left.issuperset(encoding.tokens) for encoding in whole.encode_batch(texts))
    return f"{changed:,} of {len(texts):,}"


def measured(file: Path) -> tuple[float, float, float]:
    """Return processor time of loading and of a query, ms, and memory after loading, MB, in a process of its own."""
    made = subprocess.run([sys.executable, "-c", MEASURE, str(file), QUERY], capture_output=True, text=True, check=True)
    load, p50, memory = map(float, made.stdout.split())
    return load, p50, memory


if __name__ == "__main__":
    sys.exit(main())
