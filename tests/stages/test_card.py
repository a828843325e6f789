"""The model card says how each binding has to feed the file."""

from __future__ import annotations

from pathlib import Path

from edgeleaf.bundle.manifest import Manifest


def card(bundle: Path) -> str:
    return " ".join((bundle / "README.md").read_text(encoding="utf-8").split())


def test_a_file_that_takes_strings_says_who_needs_the_other(tiny_bundle: Path) -> None:
    text = card(tiny_bundle)
    assert "input `text: string[batch]`, output `embedding: float32[batch, 48]`" in text
    for binding in ("Java", "Kotlin", "Android", "React Native"):
        assert binding in text, binding
    assert 'passes "modified UTF-8", in which an emoji' in text
    assert "`edgeleaf ship FOLDER -o COPY --input utf8`" in text
    assert "Node, the browser and all other bindings that pass C strings: a string ends at its first U+0000" in text
    assert "replace U+0000 with U+FFFD first" in text


def test_a_file_that_takes_bytes_says_how(utf8_bundle: Path) -> None:
    text = card(utf8_bundle)
    assert Manifest.read(utf8_bundle).input == "utf8"
    assert "input `utf8: uint8[batch, bytes]`, output `embedding: float32[batch, 48]`" in text
    assert "new long[] {1, length}, OnnxJavaType.UINT8)`" in text
    assert "padded on the right with 255 (0xFF)" in text
    assert "text: string" not in text and "--input utf8" not in text
