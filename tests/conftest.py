"""Tiny models built in-process, so that the whole pipeline runs in seconds; real ones come from ``edgeleaf.models``."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker per core: with more threads they would wait for each other. Read when torch is loaded, here and in the
    # processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import shutil
from pathlib import Path

import pytest

from edgeleaf import progress

REFERENCE = Path(__file__).parent.parent / "export" / "models" / "mpnet"
"""The bundle that is in the repository."""
WORDS = (
    "parcel lost found where my is the a an of return value file read write open close list sort tree graph "
    "search query document vector space teacher student window token text string number float array shape error "
    "line path folder model train step rate small large fast slow phone server browser index match score rank "
    "city river stone"
).split()


def tiny_texts(count: int, *, low: int, high: int, seed: int) -> list[str]:
    """Return ``count`` distinct texts of ``low`` to ``high`` words."""
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(chance.choices(WORDS, k=chance.randint(low, high)))] = None
    return list(found)


def needs(*packages: str) -> None:
    """Skip a test if packages are missing; fail it if ``EDGELEAF_REQUIRE_RUNTIMES`` says that all are installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("EDGELEAF_REQUIRE_RUNTIMES"):
        pytest.fail(f"EDGELEAF_REQUIRE_RUNTIMES is set and not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def make_tiny_model(folder: Path, *, seed: int, hidden: int, pooling: str = "mean", dense: int | None = None) -> Path:
    """Write a two-layer BERT sentence-transformers model with a vocabulary of its own."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    # Not trained: tokenizers' trainer finds other tokens every time, and the same seed shall give the same student.
    letters = sorted({*"".join(WORDS).lower(), *"abcdefghijklmnopqrstuvwxyz0123456789.,?!'-"})
    words = [word.lower() for word in WORDS]
    pieces = [*words[::2], *(word[:3] for word in words[1::2]), *(f"##{word[3:]}" for word in words[1::2] if word[3:])]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *pieces]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=True)
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer._tokenizer.post_processor = BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    encoder_folder = folder.with_name(f"{folder.name}-encoder")
    encoder_folder.mkdir(parents=True)
    BertTokenizerFast(tokenizer_object=tokenizer._tokenizer, model_max_length=64).save_pretrained(encoder_folder)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(encoder_folder)
    modules = [Transformer(str(encoder_folder), max_seq_length=64), Pooling(hidden, pooling)]
    if dense is not None:
        modules += [Dense(hidden, dense), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def make_other_model(folder: Path, architecture: str, tiny_student: Path) -> None:
    """Write a DistilBert, Electra or MPNet model, ``folder/model``, with the tiny student's tokenizer."""
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    sizes = {"vocab_size": 400, "max_position_embeddings": 66}
    if architecture == "DistilBert":
        config = transformers.DistilBertConfig(**sizes, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    else:
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        small = {"embedding_size": 16} if architecture == "Electra" else {}  # electra-small projects its embeddings
        config = getattr(transformers, f"{architecture}Config")(**sizes, **small)
    encoder = folder / "encoder"
    getattr(transformers, f"{architecture}Model")(config).save_pretrained(encoder)
    shutil.copyfile(tiny_student / "tokenizer.json", encoder / "tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    settings |= {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    (encoder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    modules = [Transformer(str(encoder), max_seq_length=64), Pooling(32, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"), create_model_card=False)


def typed_copy(model: Path, folder: Path, types: tuple[int, int, int]) -> Path:
    """Copy a tiny model; its template gives [CLS], the text and [SEP] these token types, and its encoder reads them."""
    shutil.copytree(model, folder)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in settings["added_tokens"]}
    before, text, after = types
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": before}},
            {"Sequence": {"id": "A", "type_id": text}},
            {"SpecialToken": {"id": "[SEP]", "type_id": after}},
        ],
        "pair": [],
        "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")},
    }
    path.write_text(json.dumps(settings), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


@contextmanager
def computing_in_float32() -> Iterator[None]:
    """Let teachers compute in float32, where this processor would take bfloat16: their vectors then agree to 1e-5."""
    from edgeleaf.models import loading

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "has_bfloat16", lambda device: False)
        yield


def needs_optimum() -> None:
    """Skip if optimum is not installed, as it allows only transformers 4; fail instead where it must be installed."""
    import importlib.util

    if importlib.util.find_spec("optimum") is None:
        if os.environ.get("EDGELEAF_REQUIRE_OPTIMUM"):
            pytest.fail("optimum is not installed")
        pytest.skip("optimum is not installed")


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first pytest-xdist worker fills with ``make(folder)`` while the others wait.

    No test may change its contents: all workers read the same files.
    """
    needs("onnx", "tokenizers", "torch")
    from filelock import FileLock  # comes with torch

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    shared.mkdir(exist_ok=True)
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model of width 32."""
    made = made_once(
        tmp_path_factory, "student", lambda folder: make_tiny_model(folder / "tiny-student", seed=1, hidden=32)
    )
    return made / "tiny-student"


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of width 48 with a Dense and a Normalize."""
    made = made_once(
        tmp_path_factory,
        "teacher",
        lambda folder: make_tiny_model(folder / "tiny-teacher", seed=2, hidden=64, dense=48),
    )
    return made / "tiny-teacher"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2."""
    from edgeleaf.models import resolve as models

    return models.resolve("sentence-transformers/all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def mpnet() -> Path:
    """The real all-mpnet-base-v2."""
    from edgeleaf.models import resolve as models

    return models.resolve("sentence-transformers/all-mpnet-base-v2")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real texts that ``EDGELEAF_DATA`` names."""
    folder = os.environ.get("EDGELEAF_DATA")
    if not folder:
        pytest.skip("EDGELEAF_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path, tiny_teacher: Path) -> Path:
    """A recipe that goes the whole way with the tiny models, in seconds."""
    made = made_once(tmp_path_factory, "recipe", lambda folder: _write_recipe(folder, tiny_student, tiny_teacher))
    return made / "tiny.toml"


def _write_recipe(folder: Path, tiny_student: Path, tiny_teacher: Path) -> None:
    (folder / "queries.txt").write_text("\n".join(tiny_texts(1500, low=3, high=8, seed=3)) + "\n")
    (folder / "documents.txt").write_text("\n".join(tiny_texts(1500, low=10, high=30, seed=4)) + "\n")
    (folder / "tiny.toml").write_text(f"""
name = "tiny"

[teacher]
model = "{tiny_teacher}"
query_prompt = "query: "
max_length = 48

[student]
model = "{tiny_student}"
max_length = 48

[texts]
limit = 2500
held_out_queries = 40
held_out_documents = 60

[[texts.sources]]
files = ["queries.txt"]
kind = "query"

[[texts.sources]]
files = ["documents.txt"]
kind = "document"

[objective]
learning_rate = 1e-3
checkpoint_steps = 10

[gates]
cosine_mean = 0.3

[benchmark]
threads = [1]
lengths = [8, 16]
repeats = 1
""")


def write_collection(folder: Path) -> Path:
    """Write a collection in BEIR's layout: 110 documents, and 25 queries with words of the document that answers."""
    documents, chance = tiny_texts(110, low=10, high=20, seed=41), random.Random(42)
    (folder / "qrels").mkdir(parents=True)
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    for n, text in enumerate(documents):
        corpus.append(json.dumps({"_id": f"d{n}", "title": "", "text": text}))
        if n < 25:
            queries.append(json.dumps({"_id": f"q{n}", "text": " ".join(chance.sample(text.split(), 6))}))
            qrels.append(f"q{n}\td{n}\t1")
    for name, lines in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", qrels)):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def thin_code_points(patch: pytest.MonkeyPatch) -> None:
    """Let certificates compare the token ids of every 64th code point only.

    ``tiny_bundle`` has been certified on all of them; tests/graph/tokenizers compare them all, too.
    """
    from edgeleaf.graph import parity
    from edgeleaf.graph.hard_texts import code_point_texts

    patch.setattr(parity, "code_point_texts", lambda: islice(code_point_texts(), 0, None, 64))


@pytest.fixture
def fewer_code_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """:func:`thin_code_points` for one test."""
    thin_code_points(monkeypatch)


@pytest.fixture(autouse=True)
def _silent_again() -> Iterator[None]:
    """Reset progress: the command line turns it on for the rest of the process, but here other tests follow."""
    yield
    progress._shown = False


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """The bundle of ``tiny_recipe``, built by the whole pipeline once, and copied for each worker."""
    from edgeleaf.pipeline import run as pipeline

    made = made_once(tmp_path_factory, "bundle", lambda folder: pipeline.run(tiny_recipe, output=folder / "tiny"))
    return shutil.copytree(made, tmp_path_factory.mktemp("bundle") / "made") / "tiny"


@pytest.fixture(scope="session")
def utf8_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A copy of ``tiny_bundle``, with its texts, whose file takes bytes. Not to be changed."""
    from edgeleaf.pipeline.ship import ship

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            thin_code_points(patch)
            ship(tiny_bundle, output=folder / "utf8", keep_texts=True, takes="utf8")

    return made_once(tmp_path_factory, "bundle-utf8", make) / "utf8"


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest) -> Path:
    """The bundle that tests of the runtime load: ``EDGELEAF_TINY_BUNDLE``, or ``tiny_bundle``. Do not change it.

    Without torch, which builds ``tiny_bundle``, it is the reference bundle, unless no package may be missing.
    """
    if named := os.environ.get("EDGELEAF_TINY_BUNDLE"):
        return Path(named)
    if importlib.util.find_spec("torch") is None and not os.environ.get("EDGELEAF_REQUIRE_RUNTIMES"):
        return REFERENCE
    built: Path = request.getfixturevalue("tiny_bundle")
    return built
