"""Nothing leaves the machine: strace watches a process that encodes, searches and exports.

The process runs in a fresh home, with the hub allowed, and without the variables of continuous integration, because
onnxruntime sends nothing if it sees those. A second run with onnxruntime's telemetry turned on shows that strace would
see it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeleaf import quiet
from tests.conftest import tiny_texts
from tests.test_web import web

__all__ = ["web"]

ROOT = Path(__file__).parent.parent
CI = (
    "CI TF_BUILD GITHUB_ACTIONS GITLAB_CI CIRCLECI TRAVIS JENKINS_URL CODEBUILD_BUILD_ID BUILDKITE TEAMCITY_VERSION "
    "APPVEYOR BITBUCKET_BUILD_NUMBER SYSTEM_TEAMFOUNDATIONCOLLECTIONURI ORT_RUNNING_UNIT_TESTS"
).split()
"""Where one of these is set, onnxruntime 1.32 does not report."""
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "EDGELEAF_CACHE", "PYTHONPATH", "HF_HOME")
REPORTS_AFTER_S = 15
"""onnxruntime 1.32 asks for its collector some nine seconds after the first session."""

LOOPBACK = re.compile(r"bind\(.*htons\(0\).*inet_pton\(AF_INET6, \"::1\"")
"""urllib3, once it is imported, tries whether this machine has IPv6: a socket bound to itself, and closed unused."""

SEARCH = """
import sys, time
from pathlib import Path
from edgeleaf import QueryEncoder
from edgeleaf.latency.process import System, builtin, started
from edgeleaf.search import Index

bundle, output = map(Path, sys.argv[1:3])
encoder = QueryEncoder.load(bundle)
texts = ["lost parcel", "graph error", "a city by the river"]
documents = [(str(n), text) for n, text in enumerate(texts)]
Index(space=encoder.space, documents=documents, vectors=encoder.encode(texts)).save(output / "index")
hits = Index.load(output / "index").search(encoder.encode(texts), space=encoder.space, k=1)
assert [row[0].id for row in hits] == ["0", "1", "2"]
with started(System("fused", "fused", builtin("fused"), str(bundle)), threads=1) as worker:
    worker.load("lost parcel")
    time.sleep(float(sys.argv[3]))
"""
EXPORT = """
import sys
from pathlib import Path
import edgeleaf

model, texts, output = sys.argv[1:4]
try:
    edgeleaf.export(model, output=Path(output) / "bundle", texts=[texts])
except edgeleaf.GateFailed as error:  # where the teacher computes in bfloat16; all but the benchmark is done then
    print(error)
"""

FRAMEWORKS = {
    "langchain": """
from edgeleaf.integrations.langchain import EdgeleafEmbeddings
from langchain_core.vectorstores import InMemoryVectorStore
store = InMemoryVectorStore.from_texts(texts, EdgeleafEmbeddings(bundle))
assert len(store.as_retriever().invoke(texts[0])) == 3
""",
    "llama_index": """
from edgeleaf.integrations.llama_index import EdgeleafEmbedding
from llama_index.core import Document, VectorStoreIndex
documents = [Document(text=text) for text in texts]
index = VectorStoreIndex.from_documents(documents, embed_model=EdgeleafEmbedding(bundle))
assert len(index.as_retriever(similarity_top_k=3).retrieve(texts[0])) == 3
""",
    "haystack": """
from edgeleaf.integrations.haystack import EdgeleafDocumentEmbedder, EdgeleafTextEmbedder
from haystack import Document, Pipeline
pipeline = Pipeline()
pipeline.add_component("documents", EdgeleafDocumentEmbedder(bundle))
pipeline.add_component("query", EdgeleafTextEmbedder(bundle))
given = {"documents": {"documents": [Document(content=text) for text in texts]}, "query": {"text": texts[0]}}
assert pipeline.run(given)["query"]["embedding"]
""",
    "txtai": """
import edgeleaf
from txtai import Embeddings
embeddings = Embeddings(method="edgeleaf.integrations.txtai.EdgeleafVectors", path=bundle)
embeddings.index(texts)
assert len(embeddings.search(texts[0], 3)) == 3
""",
}
ROUND_TRIP = """
import sys, time
bundle, texts = sys.argv[1], ["lost parcel", "graph error", "a city by the river"]
{code}
time.sleep(float(sys.argv[2]))
"""


@dataclass(frozen=True)
class Watched:
    """What a process and its children did, as strace saw it.

    Args:
        sockets: calls that opened a socket of another kind than Unix's, and what was done with addresses.
        written: files and folders made or opened for writing, outside the output folder.
    """

    sockets: tuple[str, ...]
    written: tuple[str, ...]


@pytest.fixture(scope="module")
def strace() -> list[str]:
    """Return the strace command; it filters in the kernel if that is possible, so that other calls cost nothing."""
    found = shutil.which("strace")
    if found is None or sys.platform != "linux":
        if os.environ.get("EDGELEAF_REQUIRE_RUNTIMES"):
            pytest.fail("EDGELEAF_REQUIRE_RUNTIMES is set and strace is missing: apt-get install strace")
        pytest.skip("strace is missing: apt-get install strace")
    quick = [found, "-f", "--seccomp-bpf"]
    works = subprocess.run([*quick, "true"], capture_output=True, check=False).returncode == 0
    return quick if works else quick[:2]


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Return this process's environment with a fresh home, in which only edgeleaf itself turns telemetry off."""
    left = {part.variable for part in quiet.PARTS} | {
        *CI,
        *OFFLINE,
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "MPLCONFIGDIR",
    }
    kept = {name: value for name, value in os.environ.items() if name not in left}
    fresh = {
        "HOME": str(home),
        "TMPDIR": str(home / "output"),
        "PYTHONPATH": str(ROOT),
        "EDGELEAF_CACHE": str(home / "cache"),
    }
    return kept | fresh | {"PYTHONDONTWRITEBYTECODE": "1", "TOKENIZERS_PARALLELISM": "false"} | variables


def watch(
    strace: list[str],
    home: Path,
    script: str,
    *arguments: object,
    program: tuple[str, str] = (sys.executable, ".py"),
    **variables: str,
) -> Watched:
    """Run a script, of Python or another program, under strace, with its output in ``home/output``."""
    output, log = home / "output", home.with_name(f"{home.name}.strace")
    output.mkdir(parents=True)
    (file := home.with_name(home.name + program[1])).write_text(script, encoding="utf-8")
    calls = "trace=%network,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"
    command = [*strace, "-qq", "-s", "200", "-e", calls, "-o", str(log), program[0], str(file)]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env=environment(home, **variables),
        cwd=output,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return seen(log.read_text(encoding="utf-8", errors="replace").splitlines(), output)


def seen(lines: list[str], output: Path) -> Watched:
    """Read a log of strace; edgeleaf's cache is beside the output folder."""
    sockets, written = [], []
    probes = {number - 1 for number, line in enumerate(lines) if LOOPBACK.search(line)}
    for number, line in enumerate(lines):
        if re.search(r"= -1 E", line):
            continue
        call = line.partition(" ")[2].lstrip()
        foreign = re.match(r"socket\((?!AF_UNIX|AF_LOCAL)", call) or "sa_family=AF_INET" in call
        if foreign and number not in probes and not LOOPBACK.search(line):
            sockets.append(call)
        opened = re.match(r"(?:open|openat)\(.*O_(?:WRONLY|RDWR|CREAT)", call)
        if opened or re.match(r"(?:creat|mkdir|mkdirat|rename|renameat|renameat2)\(", call):
            path = re.findall(r'"((?:[^"\\]|\\.)*)"', call)[-1]
            inside = any(
                Path(path).is_relative_to(own) for own in (output, output.with_name("cache"))
            ) or not path.startswith("/")
            if not inside and not path.startswith(("/dev/", "/proc/")):
                written.append(path)
    return Watched(tuple(sockets), tuple(dict.fromkeys(written)))


@pytest.mark.slow
def test_nothing_is_sent_and_nothing_left_behind_by_encoding_and_searching(
    strace: list[str], tmp_path: Path, tiny_bundle: Path
) -> None:
    found = watch(strace, tmp_path / "home", SEARCH, tiny_bundle, tmp_path / "home" / "output", REPORTS_AFTER_S)
    assert found == Watched((), ())
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["output"]


@pytest.mark.slow
def test_the_watch_sees_onnxruntime_report(strace: list[str], tmp_path: Path, tiny_bundle: Path) -> None:
    """Without the variable, the same process opens sockets and writes files, which the test above would notice."""
    import onnxruntime

    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    if version < quiet.ONNXRUNTIME_REPORTS_SINCE:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} does not report")
    variables = {quiet.ONNXRUNTIME.variable: "0"}
    found = watch(
        strace, tmp_path / "home", SEARCH, tiny_bundle, tmp_path / "home" / "output", REPORTS_AFTER_S, **variables
    )
    assert any("AF_INET" in call for call in found.sockets)
    assert any("onnxruntime.db" in path for path in found.written)


@pytest.mark.slow
def test_nothing_is_sent_by_an_export(strace: list[str], tmp_path: Path, tiny_teacher: Path) -> None:
    (texts := tmp_path / "queries.txt").write_text("\n".join(tiny_texts(40, low=3, high=8, seed=3)))
    found = watch(strace, tmp_path / "home", EXPORT, tiny_teacher, texts, tmp_path / "home" / "output")
    assert found == Watched((), ())


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_nothing_is_sent_by_a_framework(strace: list[str], tmp_path: Path, tiny_bundle: Path, name: str) -> None:
    """Indexing and searching with the framework's own store, where its maker's reports are on by default."""
    script = ROUND_TRIP.format(code=FRAMEWORKS[name])
    found = watch(strace, tmp_path / "home", script, tiny_bundle, REPORTS_AFTER_S)
    assert found == Watched((), ())


def test_nothing_is_sent_and_nothing_left_behind_by_the_doctor(strace: list[str], tmp_path: Path) -> None:
    script = "from edgeleaf.cli.doctor import diagnosis\nassert diagnosis()['onnxruntime']['version']\n"
    assert watch(strace, tmp_path / "home", script) == Watched((), ())


NODE = """
const [, , demo, model, waitMs] = process.argv;
await import(`file://${demo}/command.mjs`);
const { createRequire } = await import("node:module");
const ort = createRequire(`${demo}/`)("onnxruntime-node");
const session = await ort.InferenceSession.create(model);
await session.run({ text: new ort.Tensor("string", ["lost parcel"], [1]) });
await new Promise((done) => setTimeout(done, Number(waitMs)));
"""


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [False, True])
def test_node_is_silent_too(strace: list[str], tmp_path: Path, tiny_bundle: Path, web: Path, allowed: bool) -> None:
    node = str(shutil.which("node"))
    variables = {quiet.ONNXRUNTIME.variable: "0"} if allowed else {}
    given = (web, tiny_bundle / "query_encoder.onnx", 1000 * REPORTS_AFTER_S)
    found = watch(strace, tmp_path / "home", NODE, *given, program=(node, ".mjs"), **variables)
    assert any("AF_INET" in call for call in found.sockets) == allowed
    assert any("onnxruntime.db" in path for path in found.written) == allowed


LATE = """
import sys, types, warnings
late = types.ModuleType("onnxruntime")
late.__version__, late.calls = sys.argv[1], []
late.disable_telemetry_events = lambda: late.calls.append("disabled")
sys.modules["onnxruntime"] = late
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    import edgeleaf, os
    import edgeleaf.bundle.session
print([warning.category.__name__ for warning in found], late.calls, os.environ["ORT_DISABLE_TELEMETRY"])
if found:
    assert found[0].filename == __file__ and len(str(found[0].message).splitlines()) == 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the variable has no effect on Windows")
@pytest.mark.parametrize(
    ("version", "value", "said"),
    [
        ("1.28.0", None, "[] [] 1"),
        ("1.29.0", None, "['TelemetryWarning'] ['disabled'] 1"),
        ("1.32.0", "", "['TelemetryWarning'] ['disabled'] 1"),
        ("2.0.0", "maybe", "['TelemetryWarning'] ['disabled'] 1"),
        ("1.32.0", "1", "[] [] 1"),
        ("1.32.0", " TRUE ", "[] [] 1"),
        ("1.32.0", "0", "[] [] 0"),
        ("1.32.0", "false", "[] [] false"),
        ("unknown", None, "[] [] 1"),
    ],
)
def test_an_onnxruntime_that_was_there_first_is_warned_of_once(
    tmp_path: Path, version: str, value: str | None, said: str
) -> None:
    (program := tmp_path / "late.py").write_text(LATE, encoding="utf-8")
    variables = {} if value is None else {quiet.ONNXRUNTIME.variable: value}
    command = [sys.executable, str(program), version]
    done = subprocess.run(command, env=environment(tmp_path, **variables), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr


def test_every_part_is_silenced_unless_its_reports_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in quiet.PARTS:
        monkeypatch.delenv(part.variable, raising=False)
    quiet.silence()
    assert {part.variable: os.environ[part.variable] for part in quiet.PARTS} == {
        "ORT_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "DISABLE_SAFETENSORS_CONVERSION": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HAYSTACK_TELEMETRY_ENABLED": "false",
    }
    for part in quiet.PARTS:
        wish = sorted(part.reports)[0]
        monkeypatch.setenv(part.variable, wish)
        quiet.silence()
        assert os.environ[part.variable] == wish


@pytest.mark.parametrize(
    "entry",
    [
        "import edgeleaf",
        "import edgeleaf.search.index",
        "from edgeleaf.cli import main",
        "import edgeleaf.latency.worker",
        "import edgeleaf.emulation.guest",
        "import edgeleaf.certify.processors",
        "import bench.peers.run",
        "import bench.studies.settings",
    ],
)
def test_every_way_in_sets_the_variable_before_onnxruntime_is_loaded(tmp_path: Path, entry: str) -> None:
    watch = """
import os, sys
from importlib.abc import MetaPathFinder

class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1", "loaded before it was silenced"

sys.meta_path.insert(0, Watch())
"""
    script = f"{watch}\n{entry}\nassert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(tmp_path), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
