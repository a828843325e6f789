"""The readers, each as a function of a file's bytes, and a valid file to start from for each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.manifest import Manifest, VectorSpace, says_failed
from edgeleaf.certify.certificate import Certificate
from edgeleaf.errors import BundleError, EdgeleafError
from edgeleaf.latency.report import comparison, latency_table, read_latency
from edgeleaf.models.safety import check_data_only, check_model
from edgeleaf.models.weights import tokenizer_sha256, weights_sha256
from edgeleaf.pipeline.places import open_bundle
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.records import RecordError, parse_json
from edgeleaf.search.index import Index
from edgeleaf.stages.checked import gates_of

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "export/models/mpnet"
WEIGHTS = "2_Dense/model.safetensors"
SPACE = VectorSpace("t", None, "0" * 64, "mean", True, "q: ", "", 4, "1" * 64, "bidirectional")


@dataclass(frozen=True)
class Reader:
    """A reader to fuzz.

    Attributes:
        name: the reader's name.
        seed: a valid file.
        read: reads a file with the given bytes, in its own folder; an EdgeleafError means that the file is refused.
        is_json: whether the file is JSON, whose structure can be changed.
    """

    name: str
    seed: bytes
    read: Callable[[bytes], object]
    is_json: bool = True


def refusal(error: BaseException) -> str | None:
    """Return what is wrong with an error as a message about a bad file; None if it is one clear line."""
    if not isinstance(error, EdgeleafError):
        return f"{type(error).__name__} escapes: {error}"[:300]
    text = str(error)
    if not text or "\n" in text or len(text) > 1200:
        return f"a message of {len(text)} characters, {text.count(chr(10)) + 1} lines"
    return None


def tokenizer_settings() -> dict[str, object]:
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing

    made = BertWordPieceTokenizer(lowercase=True)
    made.train_from_iterator(["where is my parcel", "lost and found"], vocab_size=60, show_progress=False)
    made._tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    settings: dict[str, object] = json.loads(made._tokenizer.to_str())
    return settings


def readers(scratch: Path) -> list[Reader]:
    """Return every reader; they work in folders below ``scratch``."""
    from safetensors.numpy import save

    manifest = json.loads((BUNDLE / "edgeleaf.json").read_text())
    certificate = json.loads((BUNDLE / "certificate.json").read_text())
    certificate["per_query"] = {key: values[:2] for key, values in certificate["per_query"].items()}
    certificate["worst"] = certificate["worst"][:1]
    latency = json.loads((BUNDLE / "latency.json").read_text())
    latency["systems"] = [{**s, "lengths": s["lengths"][:1], "batches": s["batches"][:1]} for s in latency["systems"]]
    latency["settings"]["lengths"] = latency["settings"]["lengths"][:1]
    golden = [json.loads(line) for line in (BUNDLE / "golden.jsonl").read_text().splitlines()[:2]]
    golden[1]["embedding"] = golden[1]["embedding"][:4]
    bundle, index, model, student = (scratch / name for name in ("bundle", "index", "model", "student"))
    bundle.mkdir(parents=True)
    shutil.copytree(BUNDLE / "student", student, ignore=shutil.ignore_patterns("*.svg", "*.safetensors"))
    tensors = save({"a": np.ones((2, 3), np.float32)})
    for place in (student, student / "2_Dense"):
        (place / "model.safetensors").write_bytes(tensors)
    vectors = np.eye(4, dtype=np.float32)[:2]
    Index(space=SPACE, documents=[("a", "one"), ("b", "two")], vectors=vectors).save(index)
    model.mkdir()

    def read_manifest(data: bytes) -> object:
        (bundle / "edgeleaf.json").write_bytes(data)
        read = Manifest.read(bundle)
        read.space.id, gates_of(read)
        try:
            open_bundle(bundle)
        except EdgeleafError as error:
            assert refusal(error) is None, refusal(error)
        return read

    def read_certificate(data: bytes) -> object:
        from edgeleaf.cli.tables import certificate_table

        (bundle / "certificate.json").write_bytes(data)
        says_failed(bundle)
        read = Certificate.read(bundle / "certificate.json")
        certificate_table(read)
        return read.to_json(), read.failures

    def read_times(data: bytes) -> object:
        (bundle / "latency.json").write_bytes(data)
        read = read_latency(bundle)
        own = read_latency(BUNDLE)
        latency_table(own)
        return comparison(own, read, names=("a", "b"))

    def read_pack(data: bytes) -> object:
        (bundle / "golden.jsonl").write_bytes(data)
        return read_golden(bundle)

    def index_part(name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> object:
            whole = (index / name).read_bytes()
            (index / name).write_bytes(data)
            try:
                opened = Index.load(index)
                return opened.search(np.eye(4, dtype=np.float32)[:1], space=opened.space, k=1)
            finally:
                (index / name).write_bytes(whole)

        return read

    def student_part(name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> object:
            whole = (student / name).read_bytes()
            (student / name).write_bytes(data)
            try:
                weights_sha256(student)
                tokenizer_sha256(student)
                check_model(student)
                return check_data_only(student)
            finally:
                (student / name).write_bytes(whole)

        return read

    def read_toml(data: bytes) -> object:
        (scratch / "recipe.toml").write_bytes(data)
        return read_recipe(scratch / "recipe.toml")

    def read_tokenizer(data: bytes) -> object:
        from edgeleaf.graph.tokenizers.spec import parse, read_spec, reference_tokenizer

        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise BundleError("not UTF-8: whoever reads the file says so") from None
        reference_tokenizer(text, 16).encode("where")
        return read_spec(parse(text))

    def read_plain(data: bytes) -> object:
        try:
            return parse_json(data)
        except RecordError as error:
            raise BundleError(str(error)) from None

    def read_space(data: bytes) -> object:
        try:
            return VectorSpace.read(data).id
        except RecordError as error:
            raise BundleError(str(error)) from None

    def as_bytes(value: object) -> bytes:
        return json.dumps(value).encode()

    return [
        Reader("json", as_bytes({"a": [1, 2.5, None, True, "x\u00e9"], "b": {"c": -1e-3}}), read_plain),
        Reader("space", as_bytes(asdict(SPACE)), read_space),
        Reader("manifest", as_bytes(manifest), read_manifest),
        Reader("certificate", as_bytes(certificate), read_certificate),
        Reader("latency", as_bytes(latency), read_times),
        Reader("golden", b"\n".join(map(as_bytes, golden)), read_pack, is_json=False),
        *(
            Reader(name, (student / name).read_bytes(), student_part(name))
            for name in ("modules.json", "config.json", "sentence_bert_config.json", "2_Dense/config.json")
        ),
        Reader(WEIGHTS, tensors, student_part(WEIGHTS), is_json=False),
        Reader("recipe", (ROOT / "export/recipes/mpnet.toml").read_bytes(), read_toml, is_json=False),
        Reader("tokenizer", as_bytes(tokenizer_settings()), read_tokenizer),
        *(
            Reader(name, (index / name).read_bytes(), index_part(name), is_json=name == "index.json")
            for name in ("index.json", "documents.jsonl", "vectors.npy")
        ),
    ]
