"""The exporters: each writes a sentence-transformers model as an ONNX graph.

To add one, add a function and a row in ``EXPORTERS``. Each takes the model's folder and a scratch folder, and returns a
graph with the inputs ``input_ids`` and ``attention_mask`` (int64 [batch, sequence]; also ``token_type_ids`` if the
exporter needs it) and the output ``sentence_embedding``. Superfluous nodes are removed later, and
:func:`edgeleaf.graph.export.validate` checks the result of every exporter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edgeleaf.errors import ExportError, MissingExtra, reason_of
from edgeleaf.graph.builder import OPSET

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "sentence_embedding"
TORCH_OPSET = 18
"""The oldest opset that torch's exporter writes without a conversion."""


@dataclass(frozen=True)
class TokenTypes:
    """The types of a text's tokens, for a model that reads them and a template that gives types other than 0.

    Attributes:
        prefix, suffix: types of the special tokens before and after the text.
        text: the type of the text's own tokens.
    """

    prefix: tuple[int, ...]
    text: int
    suffix: tuple[int, ...]


def token_types(folder: Path) -> TokenTypes | None:
    """Return the token types that a model's tokenizer gives, or None if all are 0 or the model takes no types."""
    from transformers import AutoTokenizer

    from edgeleaf.graph.tokenizers.spec import parse, read_template

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if "token_type_ids" not in tokenizer.model_input_names:
        return None
    prefix, text, suffix = read_template(parse(tokenizer.backend_tokenizer.to_str()))
    types = TokenTypes(prefix.types, text, suffix.types)
    return types if any((*types.prefix, types.text, *types.suffix)) else None


def torch_graph(folder: Path, scratch: Path) -> onnx.ModelProto:
    """Export with ``torch.onnx.export``.

    Raises:
        ExportError: torch cannot export it.
    """
    import torch

    from edgeleaf.models.loading import load_sentence_transformer

    model = load_sentence_transformer(folder, attention="eager").to("cpu").eval()
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
    if token_types(folder) is not None:
        example["token_type_ids"] = torch.zeros_like(ids)
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
    from edgeleaf.models.loading import load_sentence_transformer

    model = load_sentence_transformer(folder, attention="eager").to("cpu").eval()
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
