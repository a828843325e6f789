"""Loads sentence-transformers models with the right window and number format."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from edgeleaf.errors import EdgeleafError, MissingExtra, ModelError, reason_of
from edgeleaf.models.safety import check_model


def load_sentence_transformer(
    folder: Path, *, max_length: int | None = None, attention: str | None = None, trust_remote_code: bool = False
) -> Any:
    """Load a sentence-transformers model in float32, on a GPU if there is one.

    Args:
        folder: a local folder; inspected first, see :func:`edgeleaf.models.safety.check_model`.
        max_length: the window in tokens; ``None`` keeps the model's own.
        attention: transformers' attention implementation; ``None`` leaves the choice to it.
        trust_remote_code: run the model's own code, if it has any. Set it only if the user has asked for it.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        ModelError: the folder holds no model, one that needs code of its own, or damaged or missing weights; or the
            window is wider than the model's positions.
    """
    sentence_transformers = require_sentence_transformers()
    if not trust_remote_code:
        check_model(folder)
    try:
        with whole_checkpoint(folder):
            model = sentence_transformers.SentenceTransformer(
                str(folder),
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                model_kwargs=float32_kwargs(attention),
            )
    except EdgeleafError:
        raise
    except Exception as error:  # the libraries below raise many types of errors, and safetensors has its own
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder}: sentence-transformers cannot load it: {reason_of(reason)}") from None
    check_finite(model, folder)
    return with_window(model.eval(), max_length, folder)


def float32_kwargs(attention: str | None = None) -> dict[str, Any]:
    """Return transformers' arguments for weights in float32, whatever the checkpoint's number format is.

    transformers 5 would use the checkpoint's own format, 4 uses float32; the argument was renamed in 4.56.
    """
    import torch
    import transformers

    renamed = tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 56)
    named = {"dtype" if renamed else "torch_dtype": torch.float32}
    return named if attention is None else {**named, "attn_implementation": attention}


@contextmanager
def whole_checkpoint(folder: Path) -> Iterator[None]:
    """Load a model without transformers' progress bars, and raise ModelError if weights are missing.

    transformers only logs what a checkpoint lacks, and fills it with random numbers. A missing pooler does not matter.
    """
    from transformers.utils import logging as transformers_logging

    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    whole, logger, handler = logging.getLogger("transformers"), logging.getLogger("transformers.modeling_utils"), Keep()
    levels, propagates = (whole.level, logger.level), logger.propagate
    bars = transformers_logging.is_progress_bar_enabled()
    whole.setLevel(logging.ERROR)
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    logger.propagate = False
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        for part, level in zip((whole, logger), levels, strict=True):
            part.setLevel(level)
        logger.removeHandler(handler)
        logger.propagate = propagates
        if bars:
            transformers_logging.enable_progress_bar()
    missing = _missing_weights("\n".join(lines))
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} others" if len(missing) > 3 else "")
        raise ModelError(f"{folder}: the checkpoint lacks {shown}; transformers would fill in random numbers")


def _missing_weights(report: str) -> list[str]:
    """Return the weights that transformers' report calls missing, except a pooler's."""
    found = re.findall(r"^(\S+)\s*\|\s*(?:\S*m)?MISSING", report, re.MULTILINE)  # transformers 5: a table
    for listed in re.findall(r"newly initialized[^:]*: \[(.*?)\]", report, re.DOTALL):  # transformers 4
        found += re.findall(r"'([^']+)'", listed)
    return [name for name in found if "pooler." not in name]


def check_finite(model: Any, folder: Path) -> None:
    """Raise ModelError if a weight of a loaded model is not a finite number; the message names the tensor."""
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{folder}: damaged weights: {name} holds numbers that are not finite")


def has_own_code(model: Any) -> bool:
    """Return whether a loaded sentence-transformers model consists of classes that came with it."""
    parts = [*model, getattr(model[0], "auto_model", None), getattr(model[0], "tokenizer", None)]
    known = ("sentence_transformers.", "transformers.", "torch.", "builtins")
    return any(not f"{type(part).__module__}.".startswith(known) for part in parts)


def autocast(device: str) -> AbstractContextManager[Any]:
    """Return bfloat16 autocast if it is used on ``device``, else a context that does nothing."""
    import torch

    if not has_bfloat16(device):
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)  # type: ignore[no-any-return]


def has_bfloat16(device: str) -> bool:
    """Return whether matrix products in bfloat16 pay off on ``device`` (``cpu``, ``cuda``, ...).

    On a processor: with AMX, or with AVX-512 BF16 on AMD. With AVX-512 BF16 alone, an Intel Xeon ran bfloat16 at 0.6
    times the speed of float32 (docs/log/speed.md). The rule is fixed and nothing is timed, so that a resumed run
    computes as it did before.
    """
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    try:
        processor = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    amd = "AuthenticAMD" in processor and "avx512_bf16" in processor
    return device == "cpu" and (amd or "amx_bf16" in processor)


def with_window(model: Any, max_length: int | None, folder: Path) -> Any:
    if max_length is None:
        return model
    positions = positions_of(model[0].auto_model)
    if positions is not None and max_length > positions:
        raise ModelError(f"max_length is {max_length}; {folder.name} has positions for {positions} tokens at most")
    model.max_seq_length = max_length
    return model


def positions_of(encoder: Any) -> int | None:
    """Return how many tokens a transformer has positions for; None if its config does not say.

    In RoBERTa, XLM-R and MPNet, the first positions of the table stand for padding, and the text's come behind them.
    """
    positions = getattr(encoder.config, "max_position_embeddings", None)
    if positions is None:
        return None
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return int(positions) if padding is None else int(positions) - padding - 1


def require_sentence_transformers() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        if error.name == "sentence_transformers":
            raise MissingExtra(
                "sentence-transformers is not installed; distilling and exporting need: pip install 'edgeleaf[distill]'"
            ) from None
        raise MissingExtra(
            f"sentence-transformers cannot be imported: {reason_of(error)}; install it again: "
            "pip install --upgrade 'edgeleaf[distill]'"
        ) from None
    return sentence_transformers
