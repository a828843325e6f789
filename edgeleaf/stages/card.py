"""The model card of a bundle: what it is, how to use it, what it was certified for. No part is written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeleaf.bundle.feed import TEXT, UTF8
from edgeleaf.bundle.manifest import Manifest

if TYPE_CHECKING:
    from edgeleaf.certify.certificate import Certificate


_TEMPLATE = """\
---
library_name: edgeleaf
pipeline_tag: feature-extraction
tags: [sentence-embeddings, onnx, semantic-search, query-encoder]
base_model: {start}
---
# {name}: a query encoder for {teacher}

{description}

A string goes in, a {dim}-dimensional vector in the space of **{teacher}** comes out, with unit L2 norm. Documents are
encoded by the teacher{document_prompt}; queries by `query_encoder.onnx`, which holds tokenizer{query_prompt}, encoder,
pooling and normalisation. Any stock ONNX Runtime (1.20 or newer) opens it.

```python
from edgeleaf import QueryEncoder  # needs numpy and onnxruntime, nothing else

encoder = QueryEncoder.load("path/of/this/folder")
encoder.encode(["where is my parcel?"])  # float32 (1, {dim})
```

Without edgeleaf: input `{input}`, output `embedding: float32[batch, {dim}]`. Texts longer than {max_length} tokens are
cut off.

{bindings}
## Certified

{verdict}, on {queries} queries against {documents} teacher-encoded documents ({origin}); see `certificate.html`.

| | cosine to the teacher: mean | p05 | p01 | min | overlap@10 | recall@100 |
|---|---|---|---|---|---|---|
{rungs}

Token ids differ from the reference tokenizer's on {mismatches} of {tried} texts. Latency on the machine that built the
bundle: `latency.json`; on yours: `edgeleaf bench`.

## Vector space

`{space}`: teacher `{teacher}`, weights sha256 `{weights}`, {pooling} pooling. Never compare its vectors with those of
another space.
"""

_INPUTS = {TEXT: "text: string[batch]", UTF8: "utf8: uint8[batch, bytes]"}
_BINDINGS = {
    TEXT: """\
- Python: pass the strings as they are.
- Node, the browser and all other bindings that pass C strings: a string ends at its first U+0000, so replace U+0000
  with U+FFFD first.
- Java, Kotlin, Android: onnxruntime's Java binding passes "modified UTF-8", in which an emoji, or any other character
  above U+FFFF, is not valid UTF-8. This file then refuses the whole batch. Use a copy that takes bytes.
- React Native: onnxruntime's binding cannot make a tensor of strings. Use a copy that takes bytes.

Make that copy with `edgeleaf ship FOLDER -o COPY --input utf8`. Its vectors are the same.
""",
    UTF8: """\
Each row is one text in UTF-8. Shorter rows are padded on the right with 255 (0xFF). This works in every binding:

- Java, Kotlin, Android: `text.getBytes(StandardCharsets.UTF_8)` in a direct `ByteBuffer`, then
  `OnnxTensor.createTensor(environment, buffer, new long[] {1, length}, OnnxJavaType.UINT8)`.
- React Native, Node, the browser: `const bytes = new TextEncoder().encode(text)`, then
  `new Tensor("uint8", bytes, [1, bytes.length])`.

Invalid UTF-8 is not an error: a malformed sequence counts as U+FFFD. A long text takes up to 25 bytes of memory per
byte, with some tokenizers up to 550, so cut texts that may have megabytes.
""",
}


def model_card(manifest: Manifest, certificate: Certificate) -> str:
    """Return the bundle's README.md."""
    space = manifest.space
    rows = []
    for rung in certificate.rungs:
        cosine = rung.teacher_cosine
        numbers = (cosine.mean, cosine.p05, cosine.p01, cosine.min, rung.overlap_at_10)
        recall = "–" if rung.recall_at_100 is None else f"{rung.recall_at_100:.4f}"
        rows.append(f"| {rung.title} | {' | '.join(f'{number:.4f}' for number in numbers)} | {recall} |")
    return _TEMPLATE.format(
        name=manifest.recipe,
        start=manifest.student["start"],
        description=manifest.description or f"Built by the recipe `{manifest.recipe}`.",
        teacher=space.teacher,
        dim=space.dim,
        input=_INPUTS[manifest.input],
        bindings=_BINDINGS[manifest.input],
        query_prompt=f", query prompt (`{space.query_prompt}`)" if space.query_prompt else "",
        document_prompt=f" with the prompt `{space.document_prompt}`" if space.document_prompt else "",
        max_length=manifest.tokenizer["max_length"],
        verdict="Every gate passed" if certificate.passed else "NOT every gate passed",
        queries=certificate.queries,
        origin=certificate.texts,
        documents=certificate.documents,
        rungs="\n".join(rows),
        mismatches=certificate.parity.mismatches,
        tried=certificate.parity.tried,
        space=space.id,
        weights=space.weights_sha256,
        pooling=space.pooling,
    )
