"""The GitHub workflows: actions are pinned, permissions are few, and every file and target that they name exists."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeleaf import __version__
from edgeleaf.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [ROOT / ".github" / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "question.yml")]
UNEXECUTED = "# Not executed where this was written; checked with actionlint."
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


@cache
def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def workflow(name: str) -> dict[Any, Any]:
    return read(ROOT / ".github" / "workflows" / name)


def triggers(found: dict[Any, Any]) -> dict[str, Any]:
    """Return the value of the key ``on``, which YAML reads as true."""
    return dict(found[True])


def steps(found: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in found["jobs"].values():
        yield from job.get("steps", [])


def makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def missing(command: str) -> list[str]:
    """Return what a command names that is not here: a target of make, a script, a file."""
    targets = set(re.findall(r"(?m)^([\w-]+):", makefile()))
    found = [f"make {target}" for target in re.findall(r"\bmake ([\w-]+)", command) if target not in targets]
    paths = re.findall(r"(?<![\w/])(?:\.ci|edgeleaf|tests|bench)/[\w./-]+", command)
    return found + [path for path in paths if not (ROOT / path).exists()]


def test_there_are_three() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml", "runtime.yml"]


@every_workflow
def test_it_says_that_nobody_ran_it(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("name:")[0].splitlines()
    assert UNEXECUTED in head


@every_workflow
def test_other_peoples_actions_are_pinned_to_a_commit(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if used := re.match(r"\s*(?:- )?uses: (\S+)(.*)", line):
            ours = used[1].startswith("./") and (ROOT / used[1]).is_file()
            assert ours or (PINNED.fullmatch(used[1]) and re.fullmatch(r" # v\d+\.\d+\.\d+", used[2])), line


@every_workflow
def test_only_publishing_may_write_and_only_its_identity(path: Path) -> None:
    found = read(path)
    assert found["permissions"] in ({}, {"contents": "read"})
    for name, job in found["jobs"].items():
        allowed = {"id-token": "write"} if (path.name, name) == ("release.yml", "publish") else {"contents": "read"}
        assert job.get("permissions", found["permissions"]) == allowed, name


@every_workflow
def test_the_checkout_leaves_no_token_and_no_step_takes_a_secret_or_a_title(path: Path) -> None:
    for step in steps(read(path)):
        if "checkout" in step.get("uses", ""):
            assert step["with"] == {"persist-credentials": False}
        assert "${{" not in step.get("run", "")
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert "pull_request_target" not in triggers(read(path))


@every_workflow
def test_its_commands_name_what_exists(path: Path) -> None:
    commands = [step["run"] for step in steps(read(path)) if "run" in step]
    assert commands
    assert [name for command in commands for name in missing(command)] == []


def test_what_is_missing_is_found() -> None:
    assert missing("make sing && python .ci/hum.py tests/none.py") == ["make sing", ".ci/hum.py", "tests/none.py"]
    assert missing("make dist && .ci/run") == []


def test_linux_runs_what_everybody_can_run() -> None:
    linux = workflow("ci.yml")["jobs"]["linux"]
    assert [step["run"] for step in linux["steps"] if "run" in step] == [".ci/run"]


def test_workflows_are_checked_as_contributors_check_them() -> None:
    (step,) = [step for step in workflow("ci.yml")["jobs"]["workflows"]["steps"] if "run" in step]
    assert re.fullmatch(r"go run github\.com/rhysd/actionlint/cmd/actionlint@v\d+\.\d+\.\d+", step["run"])
    assert f"\n{step['run']} " in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_other_systems_run_the_wheel_on_every_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = re.findall(r":: (3\.\d+)", "\n".join(project["classifiers"]))
    matrix = workflow("runtime.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == promised
    assert project["requires-python"] == f">={promised[0]}"
    for system in ("macos-", "windows-", "-arm"):
        assert any(system in name for name in matrix["os"]), system
    commands = [step["run"] for step in steps(workflow("runtime.yml")) if "run" in step]
    assert commands == ["make dist", "python .ci/runtime.py dist/*.whl"]


def test_a_release_publishes_what_was_tested() -> None:
    found = workflow("release.yml")
    assert triggers(found) == {"push": {"tags": ["v*"]}}
    jobs = found["jobs"]
    assert {name: jobs[name]["uses"] for name in jobs["publish"]["needs"]} == {
        "ci": "./.github/workflows/ci.yml",
        "runtime": "./.github/workflows/runtime.yml",
    }
    assert all("workflow_call" in triggers(workflow(name)) for name in ("ci.yml", "runtime.yml"))
    assert jobs["ci"]["needs"] == jobs["runtime"]["needs"] == "version"
    built = [step for step in steps(workflow("runtime.yml")) if "upload" in step.get("uses", "")]
    fetched, published = jobs["publish"]["steps"]
    assert [step["with"]["name"] for step in built] == [fetched["with"]["name"]] == ["dist"]
    assert published["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert published["with"]["attestations"] is True
    assert not {"user", "password"} & set(published["with"])


def test_the_tag_is_compared_with_the_version() -> None:
    (step,) = [step for step in workflow("release.yml")["jobs"]["version"]["steps"] if "run" in step]
    line = re.findall(r'grep -Fx "(.*)" edgeleaf/version\.py$', step["run"])[0].replace("\\", "")
    assert line.replace("${GITHUB_REF_NAME#v}", __version__) in (
        (ROOT / "edgeleaf" / "version.py").read_text(encoding="utf-8").splitlines()
    )


def test_a_commit_is_checked_as_make_lint_checks() -> None:
    recipe = re.search(r"(?m)^lint:.*\n((?:\t.*\n)+)", makefile())
    assert recipe
    lint = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == lint
    assert not any(hook["pass_filenames"] for hook in repository["hooks"])


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_asks_for_what_helps(path: Path) -> None:
    labels = " ".join(field["attributes"].get("label", "") for field in read(path)["body"])
    asked = re.findall(r"`edgeleaf (\w+)", labels)
    assert asked == ["doctor", "info"]
    assert set(asked) <= {command.__name__.removesuffix("_command") for command in COMMANDS}


def test_a_bug_needs_the_doctor_and_a_vulnerability_goes_elsewhere() -> None:
    fields = {field.get("id"): field for field in read(FORMS[0])["body"]}
    assert fields["doctor"]["validations"] == {"required": True}
    assert "SECURITY.md" in fields[None]["attributes"]["value"]
    assert "privately" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
