"""Other processors: the same vectors to the last bit, messages where they are not available, and who is warned."""

from __future__ import annotations

import json
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeleaf import QueryEncoder
from edgeleaf.bundle import encoder, machine
from edgeleaf.bundle.manifest import CERTIFICATE, QUERY_ENCODER, Manifest
from edgeleaf.certify import processors
from edgeleaf.certify.certificate import Certificate
from edgeleaf.certify.processors import ProcessorReport, compare, encode_alone, sample
from edgeleaf.cli.options import processor_names
from edgeleaf.emulation import processors as emulation
from edgeleaf.emulation.processors import Emulation
from edgeleaf.errors import BundleError, EmulationError, ProcessorWarning
from edgeleaf.pipeline.check import check
from edgeleaf.stages.checked import processor_facts
from tests.conftest import tiny_texts
from tests.emulation.test_processors import EMULATED, emulated

__all__ = ["emulated"]  # a fixture
QUERIES = tiny_texts(30, low=1, high=40, seed=8)


@pytest.mark.slow
def test_the_same_vectors_to_the_last_bit(emulated: Emulation, tiny_bundle: Path) -> None:
    reports = compare(tiny_bundle / QUERY_ENCODER, QUERIES, ["native", *EMULATED])
    assert [report.name for report in reports] == ["native", *EMULATED]
    for report in reports:
        assert report.queries > len(QUERIES)
        assert (report.identical, report.cosine_min) == (report.queries, 1.0)


class Elsewhere:
    """A processor that gives other vectors for one text."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def run(self, name: str, argv: list[str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
        assert timeout_s > 0
        if not self.status:
            vectors = encode_alone(Path(argv[3]), json.loads(Path(argv[4]).read_text()))
            vectors[5] = -vectors[5]
            np.save(argv[5], vectors)
        return subprocess.CompletedProcess(argv, self.status, "", f"loading\n{name}: illegal instruction\n")


def test_a_vector_that_differs_is_named(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "missing", lambda names: [])
    monkeypatch.setattr(emulation, "prepare", lambda names: Elsewhere())
    (report,) = compare(tiny_bundle / QUERY_ENCODER, QUERIES, ["armv8.0"])
    assert report.cosine_min == pytest.approx(-1)
    assert report.worst_text == sample(QUERIES)[5]
    assert report.identical == report.queries - 1


def test_a_run_that_fails(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "missing", lambda names: [])
    monkeypatch.setattr(emulation, "prepare", lambda names: Elsewhere(status=132))
    with pytest.raises(EmulationError, match=r"armv8.0: .*query_encoder.onnx does not run there: .*illegal instr"):
        compare(tiny_bundle / QUERY_ENCODER, QUERIES, ["armv8.0"])


def test_what_is_not_set_up_is_said_before_any_work(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "missing", lambda names: ["qemu for aarch64: Debian package, 63 MB"])
    with pytest.raises(EmulationError, match=r"qemu for aarch64.*python -m edgeleaf.emulation --setup"):
        check(tiny_bundle, processors=["armv8.0"])
    monkeypatch.undo()
    with pytest.raises(EmulationError, match="no processor 'z80'; there are native, x86-64-v2"):
        check(tiny_bundle, processors=["z80"])


def test_processors_on_the_command_line() -> None:
    assert processor_names("") == ()
    assert processor_names("x86-64-v3, armv9,") == ("x86-64-v3", "armv9")
    assert processor_names("all") == tuple(emulation.PROCESSORS)


def test_the_sample_has_all_lengths_and_hard_texts() -> None:
    queries = [" ".join(["word"] * n) for n in range(1, 400)]
    found = sample(queries)
    assert len(found) == processors.COMPARED_QUERIES
    assert {queries[0], queries[-1], ""} <= set(found)
    assert "" in sample([])


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        ("flags : fpu sse4_2 avx avx2 fma", "x86-64-v3"),
        ("flags : sse4_2 ssse3", "x86-64-v2"),
        ("flags : sse4_2 avx2 avx512f avx512bw", "x86-64-v3"),
        ("flags : sse4_2 avx2 avx512bw avx512_vnni", "x86-64-vnni"),
        ("flags : sse4_2 avx2 avx_vnni", "x86-64-vnni"),
        ("flags : sse4_2 avx2 avx512_vnni amx_int8", "x86-64-vnni"),
        ("Features : fp asimd crc32", "armv8.0"),
        ("Features : fp asimd asimddp", "armv8.2-dotprod"),
        ("Features : asimd asimddp i8mm sve", "armv8.6-i8mm"),
        ("Features : asimd asimddp i8mm sve2 sme", "armv9"),
    ],
)
def test_kinds_of_processors(features: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: features + "\n")
    assert machine.processor_kind() == kind


def test_a_machine_with_vnni_can_certify_for_every_kind() -> None:
    emulated = set(emulation.PROCESSORS) - {"native"}
    assert emulated | {"x86-64-vnni"} == {kind for _, kind in machine.PROCESSOR_KINDS}


MAC = "machdep.cpu.brand_string: Apple M4\nhw.optional.AdvSIMD: 1\nhw.optional.arm.FEAT_DotProd: 1\n"


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (f"{MAC}hw.optional.arm.FEAT_I8MM: 1\nhw.optional.arm.FEAT_SME: 1\n", "armv9"),
        (f"{MAC}hw.optional.arm.FEAT_I8MM: 1\nhw.optional.arm.FEAT_SME: 0\n", "armv8.6-i8mm"),
        (f"{MAC}hw.optional.arm.FEAT_I8MM: 0\n", "armv8.2-dotprod"),
        ("hw.optional.sse4_2: 1\nhw.optional.avx2_0: 1\n", "x86-64-v3"),
        ("", "arm64"),
    ],
)
def test_kinds_of_macs(facts: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    done = subprocess.CompletedProcess([], 1, facts, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert machine.processor_kind() == kind
    if "M4" in facts:
        assert machine.machine()["processor"] == "Apple M4"


@pytest.mark.parametrize(
    ("present", "kind"),
    [
        ({10, 38, 40}, "x86-64-v3"),
        ({10, 38}, "x86-64-v2"),
        ({19, 43}, "armv8.2-dotprod"),
        ({19, 43, 66}, "armv8.6-i8mm"),
        ({19, 43, 66, 70}, "armv9"),
        (set(), "AMD64"),
    ],
)
def test_kinds_on_windows(present: set[int], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SimpleNamespace(IsProcessorFeaturePresent=lambda number: int(number in present))
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    monkeypatch.setattr("ctypes.windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert machine.processor_kind() == kind


@pytest.mark.parametrize("system", ["linux", "darwin", "win32", "freebsd14"])
def test_a_machine_that_says_nothing_has_its_architecture(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", nothing)
    monkeypatch.setattr(subprocess, "run", nothing)
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert machine.processor_kind() == "riscv64"


def test_the_manifest_says_where_it_was_certified(tiny_bundle: Path) -> None:
    found = Manifest.read(tiny_bundle).processors
    assert set(found) == {machine.processor_kind()}
    assert found[machine.processor_kind()]["teacher_cosine_mean"] > 0.3


def test_the_manifest_repeats_what_the_certificate_says(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeleaf.stages.checked.processor_kind", lambda: "x86-64-v3")
    certificate = Certificate.read(tiny_bundle / CERTIFICATE)
    names = ("native", "x86-64-v3", "armv9")
    reports = tuple(ProcessorReport(name, 90, 0.99991, 0.99999, 88, "worst") for name in names)
    facts = {"queries": 90, "cosine_min": 0.99991, "cosine_mean": 0.99999, "identical": 88}
    own = {"teacher_cosine_mean": certificate.rungs[-1].teacher_cosine.mean}
    found = processor_facts(replace(certificate, processors=reports))
    assert found == {"x86-64-v3": {**own, **facts}, "armv9": facts}


def test_no_operator_reaches_the_int8_kernel_for_sme(tiny_bundle: Path, tmp_path: Path) -> None:
    """The SME kernel of DynamicQuantizeMatMul computes its own scales, so vectors would differ: docs/sme.md."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tiny_bundle / QUERY_ENCODER), options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "DynamicQuantizeMatMul" not in operators
    assert "MatMulIntegerToFloat" in operators


def test_another_kind_is_warned_once(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "processor_kind", lambda: "x86-64-v1")
    monkeypatch.setattr(encoder, "_warned", set())
    with pytest.warns(ProcessorWarning, match=r"certified on .*, this is x86-64-v1; .*edgeleaf check"):
        QueryEncoder.load(tiny_bundle / QUERY_ENCODER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QueryEncoder.load(tiny_bundle)


def test_nobody_is_warned_where_it_was_certified_or_nothing_is_said(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QueryEncoder.load(tiny_bundle)
        monkeypatch.setattr(encoder, "processor_kind", lambda: "x86-64-v1")
        monkeypatch.setattr(encoder, "_warned", set())
        encoder._warn_once(tmp_path, replace(Manifest.read(tiny_bundle), processors={}))
        lone = tmp_path / "lone.onnx"
        lone.write_bytes((tiny_bundle / QUERY_ENCODER).read_bytes())
        QueryEncoder.load(lone)


def test_a_damaged_list_of_processors(tiny_bundle: Path, tmp_path: Path) -> None:
    record = json.loads((tiny_bundle / "edgeleaf.json").read_text())
    (tmp_path / "edgeleaf.json").write_text(json.dumps({**record, "processors": ["x86-64-v3"]}))
    with pytest.raises(BundleError, match="processors is not a table"):
        Manifest.read(tmp_path)
    del record["processors"]
    (tmp_path / "edgeleaf.json").write_text(json.dumps(record))
    assert Manifest.read(tmp_path).processors == {}
