"""bench: which peers are measured, the ceiling's count, merged results, tables; no test asserts a time."""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import onnx
import pytest

from bench.peers import artefacts, figures, report
from bench.peers import environments as peers
from bench.peers import run as bench_run
from bench.peers.noise import Noise, warnings
from bench.peers.plots import PLOTS
from bench.studies import ceiling, node_profile
from edgeleaf import QueryEncoder
from edgeleaf.bundle.session import session
from edgeleaf.errors import InputError
from edgeleaf.graph.fuse import encoder_of
from edgeleaf.latency import worker as latency_worker


@pytest.mark.parametrize("table", [peers.PEERS, peers.PEERS_GPU])
def test_every_peer_has_an_environment_an_adapter_and_an_artefact(table: Path, tmp_path: Path) -> None:
    found, environments = peers.read_peers(table, tmp_path)
    assert len({peer.name for peer in found}) == len(found)
    for peer in found:
        assert peer.adapter in peers.BUILT_IN or (peers.ADAPTERS / peer.adapter).is_file()
        assert peer.artefact in {"bundle", "student", "teacher", *artefacts.MAKERS}
    used = {peer.environment for peer in found} | {"gguf-build", "model2vec-build"}
    assert {*environments.pip, *environments.npm} <= used
    packages = {package for listed in environments.pip.values() for package in listed}
    for name in ("torch", "transformers", "numpy"):  # one version for all: else it is not the peers that differ
        assert len({package for package in packages if package.startswith(f"{name}==")}) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"environment": "nowhere"}, "no environment 'nowhere'; there are"),
        ({"speed": 1}, "unexpected keyword argument 'speed'"),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    fields = {"name": "a", "title": "A", "environment": "here", "adapter": "by_hand.py", "artefact": "bundle"} | row
    lines = "\n".join(f"{key} = {value!r}" for key, value in fields.items())
    (tmp_path / "peers.toml").write_text(f"[environments]\nhere = []\n[[peer]]\n{lines}\n")
    assert tomllib.loads((tmp_path / "peers.toml").read_text())
    with pytest.raises(InputError, match=f"peer 'a': .*{message}"):
        peers.read_peers(tmp_path / "peers.toml", tmp_path)


def test_only_known_peers_can_be_chosen(tmp_path: Path) -> None:
    known, _ = peers.read_peers(peers.PEERS, tmp_path)
    assert [peer.name for peer in bench_run.chosen(known, "model2vec,edgeleaf")] == ["model2vec", "edgeleaf"]
    assert bench_run.chosen(known, None) == known
    with pytest.raises(InputError, match="no peer nobody; there are edgeleaf, "):
        bench_run.chosen(known, "edgeleaf,nobody")


def test_a_change_of_edgeleaf_makes_its_environment_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environments = peers.Environments(tmp_path, {"ours": ["{root}"]}, {})
    called: list[list[str]] = []

    def call(command: list[str], name: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        called.append(command)

    monkeypatch.setattr(peers, "_call", call)
    environments.make("ours")
    environments.make("ours")
    assert len(called) == 2  # the environment, the packages
    monkeypatch.setattr(peers, "source_hash", lambda: "another")
    environments.make("ours")
    assert len(called) == 4
    assert "{root}" not in called[-1]


def test_an_environment_is_what_its_packages_weigh(tmp_path: Path) -> None:
    environments = peers.Environments(tmp_path, {"bare": []}, {})
    inside = tmp_path / "bare" / "lib" / "python3.11" / "site-packages"
    for name, size in (("pip/code.py", 5_000_000), ("numpy/core.so", 2_000_000), ("numpy/core.pyc", 4_000_000)):
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).write_bytes(b"0" * size)
    assert environments.size_mb("bare") == 2.0


def test_packages_that_cannot_be_had_are_one_line(tmp_path: Path) -> None:
    environments = peers.Environments(tmp_path, {"broken": [f"{tmp_path}/no-such-package.whl"]}, {})
    with pytest.raises(
        InputError, match=r"^environment broken: .*pip install failed: ERROR: no-such-package"
    ) as caught:
        environments.make("broken")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "broken" / "packages.json").exists()


def test_an_encoder_without_its_tokenizer_gives_the_same_vectors(tiny_bundle: Path) -> None:
    encoder = encoder_of(onnx.load(tiny_bundle / "query_encoder.onnx"))
    golden = [json.loads(line) for line in (tiny_bundle / "golden.jsonl").read_text().splitlines()][1:]
    opened = session(encoder.SerializeToString(), threads=1)
    fused = QueryEncoder.load(tiny_bundle)
    for entry in golden[:20]:
        ids = np.array([entry["input_ids"]])
        found = opened.run(["embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        assert np.array_equal(found, fused.encode([entry["text"]]))


def test_the_ceiling_counts_every_product_of_the_graph(tiny_bundle: Path) -> None:
    encoder = encoder_of(onnx.load(tiny_bundle / "query_encoder.onnx"))
    student = next(path for path in (tiny_bundle / "student").rglob("config.json") if "hidden_size" in path.read_text())
    config = json.loads(student.read_text())
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    out = encoder.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    for tokens in (4, 9):
        a_token = layers * (4 * width * width + 2 * width * inner)
        expected = tokens * a_token + layers * 2 * tokens * tokens * width + width * out
        assert ceiling.multiplications(encoder, tokens) == expected


def test_the_profile_names_every_kind_of_node_once_a_run(tiny_bundle: Path) -> None:
    found = node_profile.profile(tiny_bundle / "query_encoder.onnx", tokens=8, runs=3)
    operators = {node["op"] for node in found["nodes"]}
    assert {"Tokenizer", "MatMulIntegerToFloat", "QLinearSigmoid"} <= operators
    assert found["whole_us"] > 0
    assert "| MatMulIntegerToFloat |" in node_profile.table(found, top=3)


def test_artefacts_are_made_once_and_again_for_another_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = artefacts.Given(tmp_path, tmp_path, tmp_path / "made", lambda name: tmp_path, 64, 64)
    given.made.mkdir()
    made: list[str] = []

    def make(_: artefacts.Given, target: Path) -> None:
        made.append(key["fused"])
        (target / "model.onnx").write_text(key["fused"])

    key = {"fused": "one"}
    monkeypatch.setitem(artefacts.MAKERS, "st-onnx", make)
    monkeypatch.setattr(artefacts.Given, "key", property(lambda _: key))
    folder = artefacts.artefact("st-onnx", given)
    assert artefacts.artefact("st-onnx", given) == folder
    key = {"fused": "two"}
    assert (artefacts.artefact("st-onnx", given) / "model.onnx").read_text() == "two"
    assert made == ["one", "two"]
    assert [path.name for path in given.made.iterdir() if path.is_dir()] == ["st-onnx"]


def test_an_artefact_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: artefacts.Given, target: Path) -> None:
        (target / "half").write_text("")
        raise RuntimeError("no more room")

    monkeypatch.setitem(artefacts.MAKERS, "st-onnx", broken)
    monkeypatch.setattr(artefacts.Given, "key", property(lambda _: {}))
    with pytest.raises(RuntimeError):
        artefacts.artefact("st-onnx", artefacts.Given(tmp_path, tmp_path, tmp_path, lambda name: tmp_path, 64, 64))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def results(*names: str, processor: str = "a processor", p50: float = 2.0) -> dict[str, Any]:
    """What bench.run writes, in miniature."""

    def record(name: str, threads: int, factor: float) -> dict[str, Any]:
        lengths = [
            {"tokens": tokens, "p50_ms": factor * tokens / 8, "p95_ms": factor, "p99_ms": factor, "cpu_ms": factor}
            | {"visits": [2, 2], "times_ms": [factor * tokens / 8] * 4}
            for tokens in (8, 16, 32)
        ]
        batches = [{"size": size, "queries_per_s": [1000 / factor] * 3, "cpu_ms": [factor] * 3} for size in (8, 32)]
        once = {"cold_ms": [100 * factor], "load_ms": [50 * factor], "peak_rss_mb": [80 * factor]}
        more = {"busy_threads": [threads], "cores": [1.0], "dim": 768, "lengths": lengths, "batches": batches}
        return {"system": name, "threads": threads, **once, **more}

    def peer(name: str) -> dict[str, Any]:
        own = name == "model2vec"
        facts = {"title": name.title(), "note": "", "space": "own" if own else "teacher", "dim": 768}
        sizes = {"artefact_mb": 24.0, "installed_mb": 80.0, "versions": {"onnxruntime": "1.32.0"}}
        cosines = [0.86 - 0.01 * (name == "by-hand-int8"), 0.88] * 10
        facts |= {"cosine": None if own else sum(cosines) / 20, "cosines": None if own else cosines}
        return facts | {"overlap_at_10": 0.7} | sizes

    rows = [{"threads": t, "gmacs_per_s": 200.0, "gb_per_s": 20.0} for t in (1, 2)]
    for row in rows:
        row |= {"least_ms": {"8": 0.5, "16": 1.0, "32": 2.0}, "encoder_ms": {"8": 1.5, "16": 1.9, "32": 3.0}}
    factors = {name: p50 * (number + 1) for number, name in enumerate(names)}
    machine = {
        "processor": processor,
        "id": "one host",
        "cores": 2,
        "features": ["avx2"],
        "governor": None,
        "gpu": None,
        "os": "Linux",
    }
    return {
        "schema_version": bench_run.SCHEMA_VERSION,
        "machine": machine | {"python": "3.11", "onnxruntime": "1.32.0"},
        "bundle": {"space": "a/space", "fused_sha256": "0" * 64, "file_mb": 24.0},
        "settings": {"threads": [1, 2], "lengths": [8, 16, 32], "batch_sizes": [8, 32], "repeats": 4, "sessions": 1}
        | {"visits": 1, "queries": 300, "documents": 2000},
        "noise": {"fixed_work_ms": [2.0] * 10 + [2.5] * 10, "others_share": 0.01, "stolen_share": 0.0},
        "ceiling": {"weights_mb": 10.6, "mmacs": {"8": 1.0, "16": 2.0, "32": 4.0}, "threads": rows},
        "peers": {name: peer(name) for name in names},
        "absent": {"llama-q8": "no wheel for this processor"},
        "notes": ["a note"],
        "systems": [record(name, threads, factors[name]) for threads in (1, 2) for name in names],
    }


def test_results_of_one_machine_are_pooled() -> None:
    one, two = results("edgeleaf", "by-hand-int8"), results("edgeleaf", "by-hand-int8", p50=4.0)
    whole = report.merged([one, two], ["one", "two"])
    assert (whole["settings"]["sessions"], whole["settings"]["repeats"]) == (2, 8)
    assert whole["systems"][0]["lengths"][0]["visits"] == [2, 2, 2, 2]
    ours = whole["systems"][0]["lengths"][0]
    assert ours["times_ms"] == [2.0] * 4 + [4.0] * 4
    assert ours["p50_ms"] == 3.0
    assert ours["cpu_ms"] == 3.0
    assert whole["systems"][0]["cold_ms"] == [200.0, 400.0]
    assert one["systems"][0]["lengths"][0]["times_ms"] == [2.0] * 4


@pytest.mark.parametrize("part", ["machine", "bundle", "settings", "peers"])
def test_results_of_other_machines_bundles_settings_and_peers_are_refused(part: str) -> None:
    other = results("edgeleaf")
    key = next(iter(other[part]))
    other[part][key] = {"versions": {}} if part == "peers" else "another"
    with pytest.raises(InputError, match=f"two and one differ in {part}: {key}; their times cannot be compared"):
        report.merged([results("edgeleaf"), other], ["one", "two"])
    nameless = [results("edgeleaf"), results("edgeleaf")]
    for found in nameless:
        found["machine"]["id"] = None
    with pytest.raises(InputError, match="does not tell one machine from another of its kind"):
        report.merged(nameless, ["one", "two"])
    more = results("edgeleaf", "by-hand-int8")
    with pytest.raises(InputError, match="two and one differ in peers: by-hand-int8"):
        report.merged([results("edgeleaf"), more], ["one", "two"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{}", "is not what bench.run writes"),
        ('{"schema_version": 0, "peers": {}}', "version 0"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        report.read(path)


def test_the_report_says_what_was_measured_and_which_targets_are_met(tmp_path: Path) -> None:
    names = ("edgeleaf", "by-hand-int8", "st-onnx-int8", "st-torch", "model2vec", "teacher-torch", "teacher-onnx")
    found = results(*names)
    measured = figures.Figures(found)
    text = report.markdown(measured)
    assert "| **Edgeleaf** | 2.00 | 4.00 | 8.00 | 1.00× | 0.8700 | 0.700 | 200 | 160 | 24.0 | 80 |" in text
    assert "| Model2Vec | 10.00 | 20.00 | 40.00 | 5.00× | own space | 0.700 |" in text
    assert "| p50 of sentence-transformers' ONNX int8 | 0.33 (0.33 to 0.33) | ≤ 0.6 | met |" in text
    assert "| p50 of sentence-transformers in torch | 0.25 (0.25 to 0.25) | ≤ 0.15 | **not met** |" in text
    # by-hand-int8 is the fastest, but its cosine is lower by more than chance.
    assert "| p50 of the fastest as faithful to the teacher (St-Onnx-Int8) | 0.33 (0.33 to 0.33) | ≤ 0.85 |" in text
    assert "| p50 of the fastest of all that hold the student (By-Hand-Int8) | 0.50 (" in text
    assert "| By-Hand-Int8 | +0.0050 | +0.00" in text
    assert "| queries per second, batch 32, of Teacher-Torch | 6.00 (6.00 to 6.00) | ≥ 30 | **not met** |" in text
    assert "| the encoder's time, as a multiple of the ceiling | 3.00 | ≤ 2 | **not met** |" in text
    assert "- llama-q8 is left out: no wheel for this processor" in text
    assert text.index("**Not quiet**: the machine's speed drifted by 25%") < text.index("## Targets")  # not at the end
    assert "- a note" in text
    assert "| Edgeleaf | 100 | 200 | 160 |" in text
    assert "| edgeleaf's encoder alone, 2 threads | 3.0× | 1.9× | 1.5× |" in text
    assert "Teacher-Onnx, from the string" not in text
    settings = dict(matplotlib.rcParams)
    for name, draw in PLOTS.items():
        draw(measured, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == settings
    assert "ceiling" not in report.markdown(figures.Figures(found | {"ceiling": None}))


def test_the_report_is_made_again_of_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results("edgeleaf", "st-torch")))
    for source, folder in (("results.json", "one"), ("one/results.json.gz", "two")):
        monkeypatch.setattr("sys.argv", ["bench.peers.report", str(tmp_path / source), "-o", str(tmp_path / folder)])
        report.main()
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("RESULTS.md", "results.json.gz", *PLOTS):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_a_system_that_does_not_tell_leaves_dashes() -> None:
    found = results("edgeleaf", "by-hand-int8")
    for entry in found["systems"]:
        entry["peak_rss_mb"], entry["busy_threads"] = [None], [None]
    assert "| 200 | – | 24.0 |" in report.markdown(figures.Figures(found))


def test_results_without_edgeleaf_or_short_texts_are_refused() -> None:
    with pytest.raises(InputError, match="edgeleaf itself was not measured"):
        figures.Figures(results("by-hand-int8"))
    found = results("edgeleaf")
    found["settings"]["lengths"] = [8, 32]
    with pytest.raises(InputError, match=r"no texts of \[16\] tokens were measured"):
        figures.Figures(found)


def test_an_interval_draws_visits_not_calls() -> None:
    found = results("edgeleaf", "by-hand-int8")
    for entry in found["systems"]:
        for length in entry["lengths"]:
            length["times_ms"] = [1.0, 1.0, 3.0, 3.0] if entry["system"] == "edgeleaf" else [2.0] * 4
    ratio = figures.Figures(found).p50_ratio("by-hand-int8", 8)
    assert (ratio.low, ratio.mean, ratio.high) == (0.5, 1.0, 1.5)


def test_adapters_give_what_sentence_transformers_gives(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    for name in ("set_num_threads", "set_num_interop_threads"):  # a worker sets them once, for its process
        monkeypatch.setattr(torch, name, lambda count: None)
    monkeypatch.syspath_prepend(str(peers.ADAPTERS))
    queries = ["where is my parcel", "a lost stone", "tree"]
    float32 = SentenceTransformer(str(tiny_bundle / "student"), device="cpu").encode(queries)
    int8 = QueryEncoder.load(tiny_bundle).encode(queries)
    teacher = tiny_bundle / "student"
    given = artefacts.Given(tiny_bundle, teacher, tmp_path, lambda name: Path(sys.executable), 64, 64)
    adapters: list[tuple[str, str, dict[str, str]]] = []
    if importlib.util.find_spec("optimum"):  # as with the oldest packages: make test-oldest
        adapters += [
            ("st-onnx", name, {"file": "onnx/model.onnx"}) for name in ("ort_model.py", "sentence_transformer.py")
        ]
    for name, adapter, options in (
        *adapters,
        ("whole-fp32", "by_hand.py", {}),
        ("student", "sentence_transformer.py", {}),
        ("bundle", "fused", {}),
    ):
        path = artefacts.artefact(name, given)
        built_in = peers.BUILT_IN.get(adapter)
        load = built_in() if built_in else latency_worker._module(str(peers.ADAPTERS / adapter)).load
        encode = load(str(path), threads=1, prompt="", **options)
        for texts in (queries[:1], queries):  # alone and padded
            found = np.asarray(encode(texts))
            expected = (int8 if adapter == "fused" else float32)[: len(texts)]
            assert np.einsum("ij,ij->i", found, expected).min() > 0.99999, adapter


def test_a_machine_that_drifts_or_is_shared_is_warned_about() -> None:
    noise = Noise()
    noise._times = [1.0] * 50
    assert warnings(noise.report()) == []
    noise._times = [1.0] * 25 + [1.3] * 25
    assert any("speed drifted by 30%" in line for line in warnings(noise.report()))
    noise._times = [1.0, 1.0, 1.0, 1.0, 2.0] * 10
    assert any("one piece of work in ten took 2.00 times its median" in line for line in warnings(noise.report()))
    noise._listened, noise._busy, noise._stolen = 10.0, 2.0, 1.0
    lines = warnings(noise.report())
    assert any("20% of the processors were busy while all peers waited" in line for line in lines)
    assert any("10% of the processor time went to other virtual machines" in line for line in lines)
    noise.look()
    assert len(noise.report()["fixed_work_ms"]) == 51
