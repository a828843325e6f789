"""``edgeleaf teach``: from a recipe to a model that a recipe can name, with every technique, killed or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeleaf.errors import BundleError, InputError, ModelError, TrainingError
from edgeleaf.models.loading import load_sentence_transformer
from edgeleaf.models.weights import weights_sha256
from edgeleaf.pipeline import teach as module
from edgeleaf.pipeline.teach import REPORT, teach
from edgeleaf.recipe.teach import read_teach_recipe
from tests.conftest import tiny_texts
from tests.teachers.decoders import make_tiny_decoder

ROOT = Path(__file__).parent.parent.parent


def write_pairs(folder: Path, *, name: str = "pairs.jsonl", seed: int = 7, count: int = 60) -> None:
    chance = np.random.default_rng(seed)
    documents = tiny_texts(2 * count + 1, low=8, high=14, seed=seed)
    rows = [
        {
            "query": " ".join(chance.choice(documents[i].split(), 4, replace=False)),
            "positive": documents[i],
            "negatives": documents[count + i : count + i + 2],
        }
        for i in range(count)
    ]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_recipe(folder: Path, start: Path, stages: str, *, top: str = "", more: str = "") -> Path:
    path = folder / "teach.toml"
    path.write_text(f'name = "x"\n[teach]\nmodel = "{start}"\nmax_length = 32\nheld_out = 10\n{top}\n{stages}\n{more}')
    return path


STAGE = """
[[teach.stages]]
steps = 8
batch_size = 6
learning_rate = 2e-3
checkpoint_steps = 3
negatives = 2
"""
PAIRS = """
[[teach.stages.pairs]]
files = ["pairs.jsonl"]
"""
INSTRUCTED = """
[[teach.stages.pairs]]
files = ["pairs.jsonl"]
instruction = "Find it."
"""


def encoded(folder: Path, text: str = "parcel lost") -> Any:
    return load_sentence_transformer(folder).encode([text])


def test_all_of_kalms_in_two_stages_with_a_soup(tiny_student: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    write_pairs(tmp_path, name="weak.jsonl", seed=8)
    stages = f"""{STAGE}
temperature = 0.02
[[teach.stages.pairs]]
files = ["weak.jsonl"]
{STAGE}
homogeneous = true
shared = 0.1
mini_batch = 4
focal = {{gamma = 0.5}}
mixing = {{count = 2}}
matryoshka = {{dims = [32, 16], weights = [1.0, 0.3]}}
mining = {{ranks = [5, 20], count = 3, filter_rank = 60}}
[teach.stages.distillation.teacher]
model = "{tiny_teacher}"
max_length = 32
[[teach.stages.pairs]]
files = ["pairs.jsonl"]
limit = 40
[[teach.stages.pairs]]
files = ["weak.jsonl"]
"""
    recipe = write_recipe(tmp_path, tiny_student, stages, top='soup = {kind = "greedy", checkpoints = 2}')
    made = teach(recipe, output=tmp_path / "taught")
    assert made.folder == tmp_path / "taught"
    assert json.loads((made.folder / REPORT).read_text()) == made.report
    weak, fine = made.report["stages"]
    assert [entry["step"] for entry in weak] == [3, 6, 8]  # only the last stage is judged
    assert [entry["step"] for entry in fine if "held_out_mrr_at_10" in entry] == [0, 3, 6, 8]
    assert made.report["soup"]["of"] == ["step 6", "step 8"]
    assert set(made.report["soup"]["members"]) <= {"step 6", "step 8"}
    assert encoded(made.folder).shape == (1, 32)
    assert not np.allclose(encoded(made.folder), encoded(tiny_student))


def test_all_of_lg_annas_leaves_the_instruction_as_the_models_prompt(tiny_student: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    stages = f"""{STAGE}
examples = 1
labels = {{temperature = 0.1}}
mining = {{ranks = [1, 30], count = 2, margin = 1.0}}
{INSTRUCTED}"""
    made = teach(write_recipe(tmp_path, tiny_student, stages), output=tmp_path / "taught")
    model = load_sentence_transformer(made.folder)
    assert model.prompts["query"] == "Instruct: Find it.\nQuery: "
    assert not model.prompts["document"]
    assert model.max_seq_length == 32


def test_labels_of_a_cross_encoder(tiny_student: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=1
    )
    folder = tmp_path / "reranker"
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_student).save_pretrained(folder)
    write_pairs(tmp_path)
    stages = f'{STAGE}\nlabels = {{reranker = "{folder}"}}\n{PAIRS}'
    teach(write_recipe(tmp_path, tiny_student, stages), output=tmp_path / "taught")
    scores = np.load(tmp_path / "taught.work" / "signals-1" / "labels.npy")
    assert scores.shape == (50, 3)
    assert np.isfinite(scores).all() and scores.min() > 0 and scores.max() < 1


def test_a_student_learns_its_queries_among_frozen_documents(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    """Its start is a student of the same teacher; documents of another width are refused."""
    write_pairs(tmp_path)
    stages = f"""{STAGE}
focal = {{}}
mixing = {{}}
mining = {{ranks = [5, 20], count = 3}}
frozen = {{beta = 0.5, teacher = {{model = "{tiny_teacher}", max_length = 32}}}}
{PAIRS}"""
    made = teach(write_recipe(tmp_path, tiny_teacher, stages), output=tmp_path / "taught")
    assert encoded(made.folder).shape == (1, 48)
    assert (tmp_path / "taught.work" / "signals-1" / "teacher_documents.npy").is_file()
    with pytest.raises(TrainingError, match=r"gives 32 numbers, the teacher of its documents 48"):
        teach(write_recipe(tmp_path, tiny_student, stages), output=tmp_path / "other")


def test_a_frozen_decoders_weights_decide_the_signals(tmp_path: Path) -> None:
    """A decoder's too: another model under the same name must not find the vectors of the first."""
    decoder = make_tiny_decoder(tmp_path / "Mistral", "Mistral")
    teachers = {
        "decoder": f'{{model = "{decoder}", kind = "decoder", attention = "causal", pooling = "last"}}',
        "http": '{model = "m", kind = "http", http = {url = "http://localhost:1", api = "openai"}}',
    }
    found = {}
    for name, said in teachers.items():
        path = write_recipe(tmp_path, decoder, f"{STAGE}\nfrozen = {{beta = 0.5, teacher = {said}}}\n{PAIRS}")
        found[name] = module._models(read_teach_recipe(path).teach.stages[0])
    assert found == {"decoder": [decoder], "http": []}


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_weights_and_work_is_done_once(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path)
    recipe = write_recipe(tmp_path, tiny_student, STAGE + PAIRS)
    first, second = (teach(recipe, output=tmp_path / name).folder for name in "ab")
    assert weights_sha256(first) == weights_sha256(second)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("done before")

    with monkeypatch.context() as patch:
        patch.setattr(module.Stages, "_digest", module.Stages._digest)
        patch.setattr("edgeleaf.training.contrastive.trainer.teach_stage", never)
        teach(recipe, output=tmp_path / "a")
    recipe.write_text(recipe.read_text().replace('name = "x"', 'name = "x"\nseed = 1'))
    assert weights_sha256(teach(recipe, output=tmp_path / "a").folder) != weights_sha256(second)


def test_a_taught_model_is_a_teacher_and_a_student_start(tiny_student: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    from edgeleaf.pipeline.run import distill

    write_pairs(tmp_path)
    made = teach(write_recipe(tmp_path, tiny_student, STAGE + PAIRS), output=tmp_path / "taught")
    text = tiny_recipe.read_text()
    for line in [line for line in text.splitlines() if line.startswith("model = ")]:
        text = text.replace(line, f'model = "{made.folder}"')
    text = text.replace('files = ["', f'files = ["{tiny_recipe.parent}/').replace("limit = 2500", "limit = 300")
    (tmp_path / "run.toml").write_text(text)
    student = distill(tmp_path / "run.toml", output=tmp_path / "bundle")
    assert encoded(student).shape == (1, 32)


@pytest.mark.slow
def test_a_killed_process_goes_on_with_the_same_weights(tiny_student: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    stage = STAGE.replace("steps = 8", "steps = 60").replace("checkpoint_steps = 3", "checkpoint_steps = 10")
    recipe = write_recipe(tmp_path, tiny_student, stage + "mixing = {}\n" + PAIRS)
    whole = teach(recipe, output=tmp_path / "whole")
    command = [sys.executable, "-m", "edgeleaf.cli", "teach", str(recipe), "-o", str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    checkpoints = tmp_path / "killed.work" / "taught-1.partial" / "checkpoints"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as running:
        while running.poll() is None and not list(checkpoints.glob("checkpoint-*/complete")):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "killed")
    assert "pairs-1: done before" in done.stderr
    assert weights_sha256(tmp_path / "killed") == weights_sha256(whole.folder)


@pytest.mark.slow
def test_soups_of_other_models_and_of_models_with_other_weights(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    write_pairs(tmp_path)
    other = teach(write_recipe(tmp_path, tiny_student, STAGE + PAIRS, top=""), output=tmp_path / "other")
    top = 'soup = {{checkpoints = 1, models = ["{}"]}}'
    recipe = write_recipe(tmp_path, tiny_student, STAGE + PAIRS, top=top.format(other.folder))
    mixed = teach(recipe, output=tmp_path / "mixed")
    assert mixed.report["soup"]["members"] == ["step 8", str(other.folder)]
    from safetensors.torch import load_file

    name = "embeddings.word_embeddings.weight"
    ours, theirs = (load_file(folder / "model.safetensors")[name] for folder in (mixed.folder, other.folder))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-7)  # the same recipe made both
    with pytest.raises(ModelError, match="other weights"):
        teach(
            write_recipe(tmp_path, tiny_student, STAGE + PAIRS, top=top.format(tiny_teacher)), output=tmp_path / "wrong"
        )
    assert not (tmp_path / "wrong").exists()


def test_a_folder_of_something_else_stays(tiny_student: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists and is not a model that edgeleaf taught"):
        teach(write_recipe(tmp_path, tiny_student, STAGE + PAIRS), output=tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note.txt"]


def test_a_model_is_not_taught_in_its_own_place(tiny_student: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    made = teach(write_recipe(tmp_path, tiny_student, STAGE + PAIRS), output=tmp_path / "taught")
    before = weights_sha256(made.folder)
    with pytest.raises(InputError, match="a model that the recipe begins with, and it stays as it is"):
        teach(write_recipe(tmp_path, made.folder, STAGE + PAIRS), output=tmp_path / "taught")
    assert weights_sha256(made.folder) == before


def test_a_model_without_a_transformer_is_one_line(tiny_student: Path, tmp_path: Path) -> None:
    import tokenizers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding

    tokenizer = tokenizers.Tokenizer.from_file(str(tiny_student / "tokenizer.json"))
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    static.save(str(tmp_path / "static"), create_model_card=False)
    write_pairs(tmp_path)
    with pytest.raises(ModelError, match="static begins with StaticEmbedding; a model that begins with a transformer"):
        teach(write_recipe(tmp_path, tmp_path / "static", STAGE + PAIRS), output=tmp_path / "taught")
    assert not (tmp_path / "taught").exists()


def test_a_mistake_leaves_nothing(tiny_student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgeleaf.cli.main import main

    (tmp_path / "pairs.jsonl").write_text('{"query": "a"}\n')
    recipe = write_recipe(tmp_path, tiny_student, STAGE + PAIRS)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exited:
        patch.setattr(sys, "argv", ["edgeleaf", "teach", str(recipe), "-o", str(tmp_path / "taught")])
        main()
    assert exited.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("edgeleaf: ") and "no positive" in error
    assert not (tmp_path / "taught").exists()
