"""The exporters: each writes a sentence-transformers model as an ONNX graph.

To add one, add a function and a row in ``EXPORTERS``. Each takes the model's folder and a scratch folder, and returns a
graph with the inputs ``input_ids`` and ``attention_mask`` (int64 [batch, sequence]; also ``token_type_ids`` if the
exporter cannot do without, which then gets zeros) and the output ``sentence_embedding``. :func:`opened` gives every
exporter the model, which makes the tokenizer's token types itself. Superfluous nodes are removed later, and
:func:`edgeleaf.graph.export.validate` checks the result of every exporter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from edgeleaf.errors import ExportError, MissingExtra, reason_of
from edgeleaf.graph.builder import OPSET
from edgeleaf.graph.tokenizers.spec import TokenTypes, parse, template_types

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "sentence_embedding"
LARGEST = 2**31 - 2**24
"""Bytes of weights in float32 that a graph may hold; protobuf ends at 2 GiB."""
TORCH_OPSET = 18
"""The oldest opset that torch's exporter writes without a conversion."""


def token_types(folder: Path) -> TokenTypes | None:
    """Return the token types that a model's tokenizer gives, or None if all are 0 or the model takes no types."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if "token_type_ids" not in tokenizer.model_input_names:
        return None
    return template_types(parse(tokenizer.backend_tokenizer.to_str()))


def check_size(model: Any, name: str) -> None:
    """Check whether a model fits into an ONNX file, which holds 2 GiB.

    Raises:
        ExportError: it does not.
    """
    parameters = sum(part.numel() for part in model.parameters())
    if 4 * parameters > LARGEST:
        raise ExportError(
            f"{name} has {parameters / 1e6:,.0f} million parameters; an ONNX file holds {LARGEST / 4e6:,.0f} million "
            "in float32: distil it instead"
        )


def opened(folder: Path) -> Any:
    """Load a model to be exported; it makes the token types of its tokenizer's template itself.

    The types follow from each token's place in its row, so the graph needs no third input, which an exporter may lack.
    """
    from edgeleaf.models.loading import load_sentence_transformer

    model = load_sentence_transformer(folder, attention="eager").to("cpu").eval()
    check_size(model, str(folder))
    types = token_types(folder)
    if types is not None:
        model[0].register_forward_pre_hook(partial(_add_types, types))
        model[0].register_forward_hook(_drop_types)
    return model


def _add_types(types: TokenTypes, module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add ``token_type_ids`` to the features that a transformer takes; padding gets type 0."""
    import torch

    features, *others = arguments
    mask = features["attention_mask"]
    place = mask.cumsum(1) - mask  # 0, 1, ... for the tokens of a row
    left = mask.sum(1, keepdim=True) - place  # ..., 2, 1
    made = mask * types.text
    for at, kind in enumerate(types.prefix):
        made = torch.where(place == at, kind, made)
    for at, kind in enumerate(reversed(types.suffix), start=1):
        made = torch.where(left == at, kind, made)
    return {**features, "token_type_ids": made}, *others


def _drop_types(module: Any, arguments: tuple[Any, ...], features: dict[str, Any]) -> dict[str, Any]:
    """Leave the types out of the features that go on, where they would be an output of the graph."""
    return {name: value for name, value in features.items() if name != "token_type_ids"}


def torch_graph(folder: Path, scratch: Path) -> onnx.ModelProto:
    """Export with ``torch.onnx.export``.

    Raises:
        ExportError: torch cannot export it.
    """
    import torch

    model = opened(folder)
    for part in model.modules():
        config: Any = getattr(part, "config", None)
        if hasattr(config, "use_cache"):
            config.use_cache = False

    class Whole(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            return self.model(dict(zip(example, values, strict=True)))[OUTPUT]

    # Three texts, two of them padded: if the example had one row or no padding, that would be fixed in the graph.
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    ids = torch.arange(3, 15).reshape(3, 4) * mask
    example = {"input_ids": ids, "attention_mask": mask}
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence")
    axes = {0: batch, 1: sequence}
    try:
        program = torch.onnx.export(
            Whole().eval(),
            tuple(example.values()),
            dynamo=True,
            dynamic_shapes=((axes,) * len(example),),
            opset_version=TORCH_OPSET,
            input_names=list(example),
            output_names=[OUTPUT],
            verbose=False,
        )
        program.save(str(scratch / "model.onnx"))
    except Exception as error:  # the errors of torch.export, onnxscript and onnx share no base class below Exception
        reason = " ".join(str(error).split())
        raise ExportError(f"{folder}: torch cannot export it: {reason_of(reason)}") from None
    graph = onnx.load(scratch / "model.onnx")
    graph.metadata_props.clear()
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return graph


def optimum_graph(folder: Path, scratch: Path) -> onnx.ModelProto:
    """Export with optimum.

    Raises:
        MissingExtra: optimum-onnx is not installed.
        ExportError: optimum cannot export it.
    """
    try:
        from optimum.exporters.onnx import onnx_export_from_model
        from optimum.exporters.tasks import TasksManager
    except ImportError:
        raise MissingExtra(
            "the exporter optimum needs optimum-onnx; pip install 'edgeleaf[optimum]', or use the exporter torch"
        ) from None
    model = opened(folder)
    try:
        TasksManager.standardize_model_attributes(model, library_name="sentence_transformers")
        onnx_export_from_model(
            model, output=scratch, task="sentence-similarity", opset=OPSET, do_validation=False, device="cpu"
        )
    except (ValueError, KeyError, RuntimeError, NotImplementedError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"{folder}: optimum cannot export it: {reason_of(reason)}") from None
    return onnx.load(scratch / "model.onnx")


EXPORTERS: Mapping[str, Callable[[Path, Path], onnx.ModelProto]] = {"torch": torch_graph, "optimum": optimum_graph}
"""Exporters by the name that a recipe and ``edgeleaf export --exporter`` use; the first is the default."""

KNOWN_ENCODERS = frozenset(
    "albert bert distilbert gemma3_text mistral modernbert mpnet qwen2 qwen3 roberta xlm-roberta".split()
)
"""Architectures, by transformers' ``model_type``, that are known to export and to have an int8 form (docs/encoders.md).

Others are not refused: whether they export is found out by exporting them.
"""
