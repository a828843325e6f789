"""Says in words which choices a tokenizer.json makes."""

from __future__ import annotations

from typing import Any

from edgeleaf.graph.tokenizers.spec import parse, read_spec


def described(tokenizer_json: str | dict[str, Any]) -> dict[str, str]:
    """Return a tokenizer's kind, normaliser, pre-tokenizer and what it puts around a text.

    Args:
        tokenizer_json: the text of a tokenizer.json, or the parsed dict; one that can be fused.

    Example:
        >>> described(Path("tokenizer.json").read_text())["kind"]
        'byte-level BPE'
    """
    settings = parse(tokenizer_json)
    spec = read_spec(settings)
    before, after = ([str(spec.tokenizer.id_to_token(n)) for n in part.ids] for part in (spec.prefix, spec.suffix))
    return {
        "kind": _kind(settings),
        "normalizer": _steps(settings.get("normalizer"), "normalizers"),
        "pre_tokenizer": _steps(settings.get("pre_tokenizer"), "pretokenizers"),
        "template": " ".join([*before, "text", *after]),
    }


def _kind(settings: dict[str, Any]) -> str:
    kind = str(settings["model"]["type"])
    if kind != "BPE":
        return kind
    return "SentencePiece BPE with byte fallback" if settings["model"].get("byte_fallback") else "byte-level BPE"


def _steps(part: dict[str, Any] | None, inner: str) -> str:
    """Return the types of a part's steps, in order; of a step with a choice that changes ids, the choice too."""
    if part is None:
        return "none"
    choices = ("lowercase", "strip_accents", "add_prefix_space", "prepend_scheme")
    steps = part.get(inner, [part])
    found = []
    for step in steps:
        made = ", ".join(f"{name}={step[name]}" for name in choices if step.get(name) is not None)
        found.append(f"{step['type']}({made})" if made else str(step["type"]))
    return " + ".join(found) or "none"
