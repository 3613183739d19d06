"""What contributors and users find at the root: pages, citation, hooks, workflows that call the Makefile."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT

PAGES = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "AGENTS.md"]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml" for name in ("bug", "feature")]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ELSEWHERE = {"README.md"}
"""Pages whose lines another test holds."""


def load(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in load(workflow)["jobs"].values():
        yield from job["steps"]


def lines(*workflows: Path) -> list[str]:
    """Every `run:` of the workflows, with the matrix's first Python in place."""
    runs = [step["run"] for workflow in workflows for step in steps(workflow) if "run" in step]
    return [re.sub(r"\$\{\{ *matrix\.python *\}\}", "3.11", run) for run in runs]


def pythons() -> set[str]:
    """The versions that pyproject.toml's classifiers name."""
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", name) for name in PROJECT["classifiers"])
    return {match.group(1) for match in found if match}


def requirements() -> list[Requirement]:
    """Of running and of developing; the embedded model is pinned for itself."""
    return [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])]


@pytest.mark.parametrize("name", [*PAGES, "LICENSE", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_the_file_is_there(name: str) -> None:
    assert len((ROOT / name).read_text()) > 300


@pytest.mark.parametrize("page", sorted({*PAGES, *(page.name for page in ROOT.glob("*.md"))} - ELSEWHERE))
def test_lines_stay_below_160_characters(page: str) -> None:
    assert [line for line in (ROOT / page).read_text().splitlines() if len(line) >= 160] == []


def test_files_named_in_the_pages_exist() -> None:
    named = set()
    for page in set(PAGES) - {"CHANGELOG.md"}:  # which names former files, too
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
        named |= set(re.findall(r"`((?:extract|datamodules|probe|configs|tests|docs)/[\w./-]+)`", text))
        named |= {ROOT / target for target in re.findall(r"\]\(([\w./]+)\)", text)}
    named = {name for name in named if not re.search(r"NAME|…", str(name))}
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_make_targets_named_in_the_pages_exist() -> None:
    text = "".join((ROOT / page).read_text() for page in PAGES)
    found = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"setup", "test", "lint", "docs"} < found <= set(phony.split())


def dry(line: str) -> str:
    """What make would run."""
    command = [*shlex.split(line), "--dry-run", "--always-make"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("line", lines(*WORKFLOWS))
def test_every_line_of_a_workflow_calls_the_makefile(line: str) -> None:
    """One line each, with nothing but a target and variables."""
    assert re.fullmatch(r"make [a-z-]+( PYTHON=python3\.\d+)?", line)
    assert "python" in dry(line)


def test_make_refuses_a_target_that_does_not_exist() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        dry("make no-such-target")


def test_workflows_run_tests_docs_and_distributions_with_few_rights() -> None:
    assert [file.stem for file in WORKFLOWS] == ["docs", "release", "tests"]
    targets = {file.stem: [line.split()[1] for line in lines(file)] for file in WORKFLOWS}
    assert targets == {"docs": ["docs"], "release": ["dist"], "tests": ["test", "test-lowest"]}
    for file in WORKFLOWS:
        assert load(file)["permissions"] == {"contents": "read"}
    writers = {
        (file.stem, name)
        for file in WORKFLOWS
        for name, job in load(file)["jobs"].items()
        if "write" in job.get("permissions", {}).values()
    }
    assert writers == {("docs", "deploy"), ("release", "publish")}  # these run no code of the repository
    assert not any("run" in step for stem, name in writers for step in load_job(stem, name)["steps"])


def load_job(stem: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = load(GITHUB / "workflows" / f"{stem}.yml")["jobs"][name]
    return found


def test_the_tested_pythons_are_the_declared_ones() -> None:
    matrix = load_job("tests", "test")["strategy"]["matrix"]["python"]
    assert set(matrix) == pythons()
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(version) for version in matrix)
    lowest = min(pythons(), key=lambda version: int(version.partition(".")[2]))
    assert PROJECT["requires-python"] == f">={lowest}"
    assert lines(GITHUB / "workflows" / "tests.yml")[-1] == f"make test-lowest PYTHON=python{lowest}"


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: str(requirement.name))
def test_every_dependency_has_a_lower_bound_and_a_pin_within_its_range(requirement: Requirement) -> None:
    """`make test-lowest` installs exactly these bounds, `make setup` exactly these pins."""
    rows = (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in rows}
    pin = pins[re.sub(r"[-_.]+", "-", requirement.name).lower()]
    assert requirement.specifier.contains(pin)
    (floor,) = (part.version for part in requirement.specifier if part.operator == ">=")
    assert f"{requirement.name}=={floor}" in lower_bounds()


def lower_bounds() -> list[str]:
    """What the Makefile's own rule reads from pyproject.toml."""
    (rule,) = (line for line in dry("make test-lowest").splitlines() if line.startswith("sed "))
    command = shlex.split(rule.partition(" > ")[0])
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


def test_the_makefile_bounds_nothing_else() -> None:
    assert len(lower_bounds()) == len(requirements())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_issue_forms_have_what_github_asks_of_them(form: Path) -> None:
    found = load(form)
    assert {"name", "description", "body"} <= set(found)
    fields = [field for field in found["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names) >= 4
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_hooks_are_those_of_make_lint() -> None:
    (repo,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"]: hook["entry"] for hook in repo["hooks"]}
    assert set(hooks) == {"ruff", "ruff-format", "mypy", "check-yaml"}
    linted = dry("make lint")
    for name in ("ruff", "ruff-format", "mypy"):
        tool = " ".join(hooks[name].split()[: 2 if name != "mypy" else 1])
        assert re.search(rf"^{re.escape(tool)}\b", linted, flags=re.MULTILINE)


def test_citation_names_the_paper_and_this_software() -> None:
    citation = load(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "type"} <= set(citation)
    assert (str(citation["version"]), citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["authors"] == PROJECT["authors"]
    (paper,) = citation["references"]
    assert (paper["title"], paper["url"]) == ("Retrieval Heads are Dynamic", PROJECT["urls"]["Paper"])
    assert [author["family-names"] for author in paper["authors"]] == "Lin Li Xing He Cui Li Ding Zhou Tang".split()


def test_changelog_keeps_the_format() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", section) for section in sections[1:])
    kinds = set(re.findall(r"^### (.*)$", text, flags=re.MULTILINE))
    assert {"Added", "Changed"} <= kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_urls_lead_to_one_repository() -> None:
    home = PROJECT["urls"]["Homepage"]
    assert load(ROOT / "CITATION.cff")["repository-code"] == home
    assert all(PROJECT["urls"][name].startswith(home) for name in ("Issues", "Changelog"))
    assert {"Homepage", "Documentation", "Issues", "Changelog"} <= set(PROJECT["urls"])
