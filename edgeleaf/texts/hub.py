"""Texts of datasets on the hub, and the revision of each dataset that a run reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeleaf.errors import EdgeleafError, MissingExtra, TextsError
from edgeleaf.files import write_json
from edgeleaf.models.hub import error_kinds, is_network_error
from edgeleaf.recipe.sources import DatasetSource, Source

DATASET_ROWS_PER_TEXT = 10


def dataset_texts(source: DatasetSource, rows: int) -> Iterator[str]:
    """Stream one column of a hub dataset.

    Raises:
        TextsError: the hub cannot be reached, or has no such dataset, revision, configuration, split or column.
        MissingExtra: the datasets package is not installed.
    """
    name = f"dataset {source.dataset!r}"
    with _hub_errors(name):
        from datasets import load_dataset

        _ask_hub(source)  # fails at once, whereas load_dataset keeps trying for half a minute
        revision: Any = {} if source.revision is None else {"revision": source.revision}
        try:
            stream = load_dataset(source.dataset, source.config, split=source.split, streaming=True, **revision)
        except ValueError as error:  # unknown configuration or split
            raise TextsError(f"{name}: {' '.join(str(error).split())[:300]}") from error
        for row in stream.take(rows):
            text = row.get(source.column)
            if not isinstance(text, str):
                columns = ", ".join(row)
                raise TextsError(f"{name}: column {source.column!r} must hold strings; the columns are {columns}")
            yield text


def pinned(sources: Sequence[Source], remembered: Path) -> tuple[Source, ...]:
    """Return the sources, with the current revision filled in for every hub dataset.

    If the hub cannot be reached, the revision that it gave last is used; if there is none, the source stays unchanged.

    Args:
        sources: the sources of a recipe.
        remembered: a JSON file that records the revisions that the hub gave.

    Raises:
        TextsError: the hub has no such dataset or revision.
        MissingExtra: a source is a hub dataset, but the datasets package is not installed.
    """
    found: list[Source] = []
    for source in sources:
        if isinstance(source, DatasetSource):
            try:
                known = json.loads(remembered.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                known = {}
            key = f"{source.dataset}@{source.revision or ''}"
            try:
                with _hub_errors(f"dataset {source.dataset!r}"):
                    revision = getattr(_ask_hub(source), "sha", None)
                if revision:
                    write_json(remembered, {**known, key: revision})
            except _OutOfReach:
                revision = known.get(key)
            source = replace(source, revision=revision or source.revision)
        found.append(source)
    return tuple(found)


class _OutOfReach(TextsError):
    """The network or the hub failed."""


def _ask_hub(source: DatasetSource) -> Any:
    """Ask the hub for its information about a dataset."""
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise MissingExtra("hub datasets need the datasets package: pip install 'edgeleaf[distill]'") from error
    revision: Any = {} if source.revision is None else {"revision": source.revision}
    return HfApi().dataset_info(source.dataset, timeout=10, **revision)


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Turn errors of the hub, the network and the disk into one-line errors; pass all other errors on unchanged."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise MissingExtra("hub datasets need the datasets package: pip install 'edgeleaf[distill]'") from error
    except EdgeleafError:
        raise
    except Exception as error:
        kinds = error_kinds(error)
        kind = type(error).__name__
        reason = " ".join(str(error).split())[:200]
        if "huggingface_hub.RevisionNotFoundError" in kinds:
            raise TextsError(f"{name} has no such revision on the hub: check the recipe's revision") from error
        if kinds & {"huggingface_hub.RepositoryNotFoundError", "datasets.DatasetNotFoundError"}:
            raise TextsError(
                f"the hub has no {name}, or it is private or gated: check the name or set HF_TOKEN"
            ) from error
        if is_network_error(error):
            raise _OutOfReach(
                f"{name} cannot be streamed from the hub ({kind}): check the network, set HF_ENDPOINT, "
                "or use files instead"
            ) from error
        if isinstance(error, OSError) or kinds & {"datasets.DatasetsError", "pyarrow.ArrowException"}:
            raise TextsError(
                f"{name} cannot be read ({kind}: {reason}): check its files on the hub, and your disk"
            ) from (error)
        raise
