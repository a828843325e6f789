"""The student as a sentence-transformers model: Transformer, Pooling, Dense to the teacher's width, Normalize."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.errors import EdgeleafError, ModelError, reason_of
from edgeleaf.files import write_json
from edgeleaf.models.loading import (
    autocast,
    load_sentence_transformer,
    require_sentence_transformers,
    whole_checkpoint,
    with_window,
)
from edgeleaf.models.portable import make_portable
from edgeleaf.models.safety import check_data_only, check_model
from edgeleaf.records import read_json

STUDENT_BATCH = 32


def build_student(
    start: Path,
    *,
    dim: int,
    max_length: int,
    pooling: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    query_prompt: str = "",
    document_prompt: str = "",
) -> Any:
    """Make a student to train: the start model's encoder, pooling, a linear projection to ``dim``, L2 norm.

    A start that already is such a student of the same width keeps its pooling and projection.

    The encoder has no dropout: a regression onto given vectors needs no regulariser, and learns faster without one
    (cosine 0.732 instead of 0.714 after 20,000 texts, in trials before this code).

    Args:
        start: folder of a transformers or sentence-transformers model with an encoder.
        dim: the teacher's width.
        max_length: window in tokens.
        pooling: kinds of sentence-transformers' pooling, side by side: ``mean``, ``max``, ``cls``; None means the
            start's own if it is such a student, else the mean.
        layers: which of the start's layers the student has, in this order, 0 the first; None means all.
        query_prompt, document_prompt: stored as the model's prompts ``query`` and ``document``.

    Raises:
        ModelError: also if the start has no such layers.
        ModelError, MissingExtra: like :func:`load_sentence_transformer`.
    """
    import torch

    require_sentence_transformers()
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    # On a processor in bfloat16, torch's fused attention takes eight times as long backwards as plain products do.
    attention = {} if torch.cuda.is_available() else {"attn_implementation": "eager"}
    check_model(start)
    no_code = {"trust_remote_code": False}
    try:
        with whole_checkpoint(start):
            encoder = Transformer(
                str(start),
                max_seq_length=max_length,
                config_kwargs=no_dropout | no_code,
                model_kwargs=attention | no_code,
                processor_kwargs=no_code,
            )
    except EdgeleafError:
        raise
    except Exception as error:  # the libraries below raise many types of errors, and safetensors has its own
        reason = " ".join(str(error).split())
        raise ModelError(f"{start}: transformers cannot load it as a student: {reason_of(reason)}") from None
    if layers is not None:
        keep_layers(encoder.auto_model, layers, name=start.name)
    before = load_sentence_transformer(start) if has_projection(start, dim) else None
    pooled = Pooling(encoder.get_embedding_dimension(), tuple(pooling or ("mean",))) if before is None else before[1]
    modes = (pooled.pooling_mode,) if isinstance(pooled.pooling_mode, str) else tuple(pooled.pooling_mode)
    if pooling is not None and set(pooling) != set(modes):
        raise ModelError(
            f"{start.name} is a student with the pooling {', '.join(modes)}, and continues with it; "
            f"leave out the pooling {', '.join(pooling)}"
        )
    dense = Dense(pooled.get_embedding_dimension(), dim, bias=False, activation_function=torch.nn.Identity())
    if before is not None:
        dense.load_state_dict(before[2].state_dict())
    model = SentenceTransformer(
        modules=[encoder, pooled, dense, Normalize()],
        prompts={"query": query_prompt, "document": document_prompt},
    )
    return with_window(model, max_length, start)


def keep_layers(encoder: Any, layers: Sequence[int], *, name: str) -> None:
    """Keep some layers of a transformers encoder, in the given order, and write their number into its configuration.

    Args:
        encoder: a transformers model with one list of all its layers.
        layers: their places, 0 the first; none leaves the token vectors.
        name: for messages.

    Raises:
        ModelError: it has no such layers, or no list of all of them.
    """
    import torch

    count = encoder.config.num_hidden_layers
    if len({*layers}) != len(layers) or not all(0 <= layer < count for layer in layers):
        raise ModelError(f"layers is {list(layers)}; {name} has the layers 0 to {count - 1}, each to be named once")
    lists = [part for part in encoder.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == count]
    if len(lists) != 1:
        raise ModelError(f"{name} has {len(lists)} lists of {count} layers, one is needed; leave out layers")
    kept = [lists[0][layer] for layer in layers]
    del lists[0][:]
    lists[0].extend(kept)
    encoder.config.num_hidden_layers = len(kept)


def has_projection(start: Path, dim: int) -> bool:
    """Return whether a folder holds a student of :func:`build_student`, from which training can continue."""
    try:
        modules = read_json(start / "modules.json")
        kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
        dense = read_json(start / modules[2]["path"] / "config.json")
        linear = (
            not dense["bias"] and dense["activation_function"].endswith("Identity") and dense["out_features"] == dim
        )
        return kinds == ["Transformer", "Pooling", "Dense", "Normalize"] and linear
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return False


def fit_projection(
    pooled: npt.NDArray[np.float32], target: npt.NDArray[np.floating[Any]], *, ridge: float
) -> npt.NDArray[np.float32]:
    """Fit the projection in closed form: the W that minimises ‖X Wᵀ - T‖² + ridge ‖W‖².

    The ridge term is necessary. MiniLM's pooled outputs have a direction of zero variance; plain least squares returns
    weights of 10^6 along it, and the first training steps then destroy everything.

    Args:
        pooled: float32 [n, width], the encoder's pooled outputs; rows are scaled to unit norm before the fit
            (because of the final L2 norm, their length does not matter to a projection without bias).
        target: [n, dim], the teacher's unit vectors.
        ridge: weight of ‖W‖², on unit-norm rows.

    Returns:
        float32 [dim, width].
    """
    x = pooled.astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    gram = x.T @ x + ridge * np.eye(x.shape[1])
    return np.ascontiguousarray(np.linalg.solve(gram, x.T @ target.astype(np.float64)).T, dtype=np.float32)


def start_projection(model: Any, texts: Sequence[str], target: npt.NDArray[np.floating[Any]], *, ridge: float) -> None:
    """Set the student's projection to the ridge fit from its pooled outputs on ``texts`` to the teacher's vectors.

    A student that was trained for this teacher before keeps its projection if it is closer than a fit on three quarters
    of the texts, judged on the last quarter.

    Args:
        model: a student of :func:`build_student`.
        texts: strings, prompts included.
        target: [len(texts), dim].
        ridge: see :func:`fit_projection`.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    from edgeleaf.vectors import cosine_rows

    encoder = SentenceTransformer(modules=[model[0], model[1]])
    pooled = np.empty((len(texts), encoder.get_embedding_dimension()), dtype=np.float32)
    piece = 32 * STUDENT_BATCH
    with progress.bar("projection start", len(texts)) as advance, autocast(model.device.type):
        for start in range(0, len(texts), piece):
            part = texts[start : start + piece]
            pooled[start : start + len(part)] = encoder.encode(part, batch_size=STUDENT_BATCH, show_progress_bar=False)
            advance(len(part))
    weight = model[2].linear.weight
    fitted, judged = len(texts) - len(texts) // 4, pooled[-(len(texts) // 4) :]
    trial = fit_projection(pooled[:fitted], target[:fitted], ridge=ridge)
    there = weight.detach().float().cpu().numpy()
    closeness = [float(cosine_rows(judged @ rows.T, target[fitted:]).mean()) for rows in (there, trial)]
    if closeness[0] >= closeness[1]:
        progress.say(f"projection start: the student's own, cosine {closeness[0]:.4f}; a new fit {closeness[1]:.4f}")
        return
    with torch.no_grad():
        weight.copy_(torch.from_numpy(fit_projection(pooled, target, ridge=ridge)))


def save_student(model: Any, folder: Path) -> None:
    """Write the student for any version of sentence-transformers, with the tokenizer of :func:`shipped_tokenizer`."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for every file that is written
    shipped_tokenizer(model.tokenizer, model.max_seq_length)
    try:
        model.save(str(folder), create_model_card=False)
    except Exception as error:  # safetensors has its own error for a full disk
        raise ModelError(f"{folder}: the student cannot be written: {' '.join(str(error).split())[:200]}") from None
    make_portable(folder, max_length=int(model.max_seq_length))
    for path in folder.rglob("*config*.json"):  # transformers has this code itself, so it is left out
        settings = read_json(path)
        if isinstance(settings, dict) and settings.pop("auto_map", None) is not None:
            write_json(path, settings)
    check_data_only(folder)


def shipped_tokenizer(tokenizer: Any, max_length: int) -> Any:
    """Set a transformers tokenizer's backend to the form that ``student/tokenizer.json`` has, and return it.

    It does not pad. If texts are cut on the left, it records that, because otherwise only ``tokenizer_config.json``
    would; a tokenizer that cuts on the right, as most do, records nothing.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if tokenizer.truncation_side == "left":
        backend.enable_truncation(max_length, direction="left")
    return backend
