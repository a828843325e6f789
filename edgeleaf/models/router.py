"""Joins two sentence-transformers models into one with a Router: one for queries, the other for documents.

The layout is that of ``Router.for_query_document(...)``, in the form that sentence-transformers 5.0 to 6 can read: the
older names of modules, and a folder for each: ``query_0_Transformer``, ``query_1_Pooling``, ``document_0_Transformer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeleaf.errors import ModelError
from edgeleaf.files import write_json
from edgeleaf.models.safety import WRITTEN_MODULES
from edgeleaf.records import read_json

OLD_NAMES = "sentence_transformers.models"
"""Package of all modules in sentence-transformers 5.0; later versions still know it."""
READABLE_SINCE = "5.0.0"
_OF_THE_WHOLE = ("modules.json", "config_sentence_transformers.json", "README.md", "training.json", "training.svg")


def join(folder: Path, routes: Mapping[str, Path], *, prompts: Mapping[str, str]) -> None:
    """Write a model with a Router.

    Args:
        folder: where to; an empty folder.
        routes: the two models, ``query`` and ``document``, as :func:`edgeleaf.models.portable.make_portable` leaves
            them and on the same disk; their files are moved.
        prompts: the prompts of ``encode_query`` and ``encode_document``.

    Raises:
        ModelError: one of the models has a module that this form cannot hold.
    """
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    for route, source in routes.items():
        structure[route] = []
        for place, module in enumerate(read_json(source / "modules.json")):
            kind = str(module["type"]).rpartition(".")[2]
            if kind not in WRITTEN_MODULES:
                raise ModelError(
                    f"{source}: a module of type {kind}; a repository of this form holds {', '.join(WRITTEN_MODULES)}"
                )
            name = f"{route}_{place}_{kind}"
            types[name] = f"{OLD_NAMES}.{kind}"
            structure[route].append(name)
            _move_module(source, str(module["path"]), folder / name)
    parameters = {"default_route": "document", "allow_empty_key": True}
    write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": f"{OLD_NAMES}.Router"}])
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "__version__": {"sentence_transformers": READABLE_SINCE},
            "prompts": dict(prompts),
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def _move_module(source: Path, place: str, target: Path) -> None:
    if place and (source / place).is_dir():
        (source / place).replace(target)
        return
    target.mkdir()  # a Normalize may have no folder of its own
    for path in () if place else sorted(source.iterdir()):
        if path.is_file() and path.name not in _OF_THE_WHOLE:
            path.replace(target / path.name)
