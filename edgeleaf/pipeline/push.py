"""Puts a bundle onto the Hugging Face hub: everything is checked and made first, then there is one commit.

``huggingface_hub``'s ``ModelHubMixin.push_to_hub`` uploads a folder, which since huggingface_hub 2 may take several
commits; a dropped connection could then leave half a bundle. Hence one commit of our own, of the same files: the
bundle, a card, and ``config.json``, by which the hub counts downloads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeleaf import progress
from edgeleaf.bundle import hub
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import InputError
from edgeleaf.extras import require
from edgeleaf.pipeline.given import part_of, passed_bundle
from edgeleaf.pipeline.places import open_bundle
from edgeleaf.records import shown

ONNX = "onnx"
TRANSFORMERS_JS = "onnx/model_quantized.onnx"
"""Where transformers.js looks for an int8 model: ``dtype: "q8"``."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
SHIPPED = "float16"
"""How ``edgeleaf ship`` stores the student. Its copies hold texts that may be given away, all others may not."""
MACHINE = "documentation found on the machine"
_PLACE = 'QueryEncoder.load("path/of/this/folder")'
_FOR_JAVASCRIPT = """
## transformers.js

`AutoModel` gives the same vectors, as `sentence_embedding`; the tokenizer is then transformers.js's own. `pipeline()`
does not: it pools again, and drops the projection.

```js
import {{ AutoModel, AutoTokenizer }} from "@huggingface/transformers";

const tokenizer = await AutoTokenizer.from_pretrained("{name}");
const model = await AutoModel.from_pretrained("{name}", {{ dtype: "q8" }});
const {{ sentence_embedding }} = await model(tokenizer(["where is my parcel?"], {{ padding: true, truncation: true }}));
```
"""


def push(bundle: str | Path, repository: str, *, private: bool = False) -> str:
    """Put a bundle onto the hub, in one commit, and return that commit's address.

    The commit holds the bundle without its unfused graphs, a model card whose metadata the hub understands,
    ``config.json``, and the files by which transformers.js opens the encoder. The token is huggingface_hub's own
    (``HF_TOKEN``, or ``hf auth login``); it is not shown. ``HF_ENDPOINT`` names another hub.

    Args:
        bundle: a bundle folder, which is not changed.
        repository: ``owner/name``; it is made if it is not there.
        private: make it private, if it is made now.

    Raises:
        BundleError: the bundle is damaged; the hub refuses or cannot be reached, or HF_HUB_OFFLINE is set. No commit
            has been made then.
        GateFailed: the bundle failed one of its gates; the hub is not asked.
        InputError: the repository's name is none, or the bundle holds your own texts and would be public.
        MissingExtra: huggingface_hub or onnx is not installed.
    """
    folder = Path(bundle)
    if not isinstance(repository, str) or not hub.NAME.fullmatch(repository):
        what = shown(repository) if isinstance(repository, str) and "@" not in repository else "something else"
        raise InputError(f"the repository is {what}; owner/name is needed, such as acme/support-queries")
    require("push")
    hub.check_online(f"{repository}: nothing was committed")
    open_bundle(folder)  # the student has data only
    manifest, certificate = passed_bundle(folder)
    origin = str(manifest.held_out.get("origin", ""))
    own_texts = manifest.student.get("stored") != SHIPPED and not origin.startswith(MACHINE)
    refusal = InputError(
        f"{folder} holds texts of its own ({origin}), and everybody may read {repository}; copy it without them: "
        f"edgeleaf ship {folder} -o COPY; or push it with --private to a new repository"
    )
    if own_texts and not private:
        raise refusal
    files = _files(folder, manifest, repository)
    with hub.one_line(f"{repository}: nothing was committed", repository), hub.quietly(), _plain_http():
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        if own_texts and not api.model_info(repository).private:
            raise refusal
        return _commit(api, repository, files, message=f"edgeleaf push: {certificate.space['id']}")


def _files(bundle: Path, manifest: Manifest, repository: str) -> dict[str, Path | bytes]:
    """Return the files of the commit."""
    files = part_of(bundle, manifest, kept=lambda path: path.partition("/")[0] != ONNX)
    student = {name: files[place] for name in TOKENIZER_FILES if (place := f"{layout.STUDENT}/{name}") in files}
    config = f"{layout.STUDENT}/{hub.CONFIG}"
    files[hub.CONFIG] = files.get(config, b'{"library_name": "edgeleaf"}\n')  # a student may have it in a subfolder
    encoder = transformers_js_encoder(bundle / layout.QUERY_ENCODER) if config in files and student else None
    if encoder is None:
        progress.say("push: without the files for transformers.js, which cannot run this encoder by itself")
    else:
        files |= student
        files[TRANSFORMERS_JS] = encoder
    card = files.get(layout.MODEL_CARD)
    text = card.read_text(encoding="utf-8") if isinstance(card, Path) else f"# {manifest.recipe}\n"
    files[layout.MODEL_CARD] = hub_card(text, manifest, repository, javascript=encoder is not None).encode()
    return files


def transformers_js_encoder(file: Path) -> bytes | None:
    """Return a fused file's encoder as transformers.js opens it: token ids in, ``sentence_embedding`` out, unit norm.

    Projection and normalisation are inside, so the vectors are the fused file's. None if the encoder takes more than
    token ids and their mask.
    """
    import onnx

    from edgeleaf.errors import ExportError
    from edgeleaf.graph.builder import serialize
    from edgeleaf.graph.fuse import ENCODER_OUTPUT, encoder_of
    from edgeleaf.graph.walk import rename_tensors

    try:
        encoder = encoder_of(onnx.load(str(file)))
    except (ExportError, onnx.checker.ValidationError):
        return None
    output = encoder.graph.output[0]
    rename_tensors(encoder.graph, {ENCODER_OUTPUT: f"{ENCODER_OUTPUT}/raw"})
    rename_tensors(encoder.graph, {output.name: ENCODER_OUTPUT})
    del encoder.graph.value_info[:]
    onnx.checker.check_model(encoder)
    return serialize(encoder)


def hub_card(text: str, manifest: Manifest, repository: str, *, javascript: bool) -> str:
    """Return a model card whose metadata the hub understands and whose example names the repository.

    What a user has added to the card stays.
    """
    from huggingface_hub import ModelCard

    card = ModelCard(text, ignore_metadata_errors=True)
    known: Mapping[str, Any] = card.data.to_dict()
    tags = [*(known.get("tags") or ()), "sentence-embeddings", "onnx", "query-encoder"]
    card.data.library_name = "edgeleaf"
    card.data.pipeline_tag = known.get("pipeline_tag") or "feature-extraction"
    card.data.tags = list(dict.fromkeys([*map(str, tags), *(["transformers.js"] if javascript else [])]))
    start = str(manifest.student.get("start", ""))
    card.data.base_model = start if hub.NAME.fullmatch(start) else None  # else a folder of this machine
    body = card.text.replace(_PLACE, f'QueryEncoder.load("{repository}")')
    if javascript and "## transformers.js" not in body:
        body = f"{body.rstrip()}\n{_FOR_JAVASCRIPT.format(name=repository)}"
    return f"---\n{card.data.to_yaml()}\n---\n{body.lstrip()}"


@contextmanager
def _plain_http() -> Iterator[None]:
    """Upload over plain HTTP: this is what the tests see, and what mirrors of the hub understand too."""
    from huggingface_hub import constants

    before = getattr(constants, "HF_HUB_DISABLE_XET", True)
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _commit(api: Any, repository: str, files: Mapping[str, Path | bytes], *, message: str) -> str:
    from huggingface_hub import CommitOperationAdd

    size = sum(len(part) if isinstance(part, bytes) else part.stat().st_size for part in files.values())
    progress.say(f"push: {len(files)} files, {size / 1e6:.1f} MB to {repository}")
    operations = [
        CommitOperationAdd(name, part if isinstance(part, bytes) else str(part)) for name, part in files.items()
    ]
    return str(api.create_commit(repository, operations, commit_message=message).commit_url)
