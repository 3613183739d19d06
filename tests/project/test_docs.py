"""The documentation: its site builds strictly, its commands parse, its Python runs, what it names exists, its words."""

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from probe.cli.main import HELP, main
from tests.conftest import ROOT, Run

PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "ckpts" / "README.md"]
NOTEBOOK = ROOT / "notebooks" / "heads_over_time.ipynb"

OTHER_WORDS = {
    r"figures?": "metrics for numbers, plots for pictures",
    r"look(s|ed|ing)?|seen": "attends, attended, most attended position",
    r"silenc(e|es|ed|ing)|mut(e|es|ed|ing)": "ablate",
    r"foretells?|foretold|fores(ee|ees|een|aw)": "predict",
    r"judg(e|es|ed|ing)": "evaluate",
    r"pay(s|ing)?|paid": "receives attention",
    r"draws?|drawn|drew": "sample, plot",
    r"meets?|met": "another word",
    r"moment|turnover": "step, retrieval state; dynamism",
    r"tells?|told|says? nothing": "reports, shows",
    r"mend(s|ed|ing)?": "fixed",
    r"stands?|stood|behind|lopsided|invented": "is, after, skewed, synthetic",
    r"of (its|their|one's) own|at once|of a kind|parts": "own, together, such, diverges",
}
"""Words that are none of the field's, and what to write; whole words, outside of code."""

COMMANDS = re.findall(r"^  ([a-z]+) +[A-Z\[]", HELP, flags=re.MULTILINE)
"""Commands beside Lightning's stages: each is a line of the help with its arguments."""

LITERAL = (r"table(,| and) figure",)
"""Where such a word is meant literally: the figures of the paper."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def prose(text: str) -> str:
    """A text without code, link targets and what is meant literally."""
    for ignored in (r"```.*?```", r"`[^`]*`", r"\]\([^)]*\)", r"https?://\S+", *LITERAL):
        text = re.sub(ignored, " ", text, flags=re.DOTALL)
    return text


def cells(text: str) -> list[str]:
    """The cells of a page's tables."""
    rows = (line.strip() for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines())
    return [cell.strip() for row in rows if row.startswith("|") for cell in row.strip("|").split("|")]


def commands() -> list[str]:
    """Every `lightning` command line of the texts, continued lines joined and comments gone."""
    found = set()
    for page in TEXTS:
        for block in (*blocks(page, "sh"), *blocks(page, "")):
            lines = block.replace("\\\n", " ").splitlines()
            found |= {re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip().startswith("lightning ")}
    return sorted(found)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a small demo leaves: a store of the embedded LLM, and a probe."""
    folder = tmp_path_factory.mktemp("demo")
    where = ["--store", str(folder / "stores" / "demo-niah"), "--trainer.default_root_dir", str(folder / "runs")]
    few = ["-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_docs.yaml"]
    assert main(["predict", *few, *where]) == 0
    checkpoints = str(folder / "ckpts" / "demo-niah" / "classifier")
    small = ["--trainer.max_epochs", "8", "--model.init_args.hidden", "[64]", "--trainer.logger", "false"]
    assert main(["fit", "-c", "configs/probe.yaml", *where, *small, "--checkpoint.init_args.dirpath", checkpoints]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_python_of_a_page_runs(page: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_notebook_runs_and_ablation_changes_the_answer(demo: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept without outputs
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(demo)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    answers = dict(re.findall(r"^(wanted|before|ablated) +(.*)$", said, flags=re.MULTILINE))
    assert answers["wanted"] in answers["before"]
    assert answers["wanted"] not in answers["ablated"]


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)[1:]
    if words[0] in COMMANDS:
        return
    if "--help" in words or words[0] == "STAGE" or "{" in words[0]:
        return
    (mine,) = blocks(ROOT / "docs" / "guides" / "model.md", "yaml")
    (tmp_path / "mine.yaml").write_text(mine)
    monkeypatch.chdir(tmp_path)
    if "--ckpt_path" in words:  # it would be read
        place = words.index("--ckpt_path")
        del words[place : place + 2]
    with pytest.raises(SystemExit) as stop:
        run(*words, "--print_config")
    assert stop.value.code == 0


def resolve(name: str) -> Any:
    """A dotted name as module, then attributes."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def test_names_and_files_of_the_pages_exist() -> None:
    names, files = set(), set()
    for page in TEXTS:
        for text in re.findall(r"`([^`\n]+)`", page.read_text()):
            if re.fullmatch(r"(extract|datamodules|probe)(\.\w+)+", text):
                names.add(text)
            if re.fullmatch(r"(configs|notebooks|tests)/[\w./-]+\w", text):
                files.add(text)
    assert len(names) > 40 and len(files) > 10
    for name in names:
        resolve(name)
    assert [file for file in files if not (ROOT / file).exists()] == []


def public_names() -> list[str]:
    """Every name that a package's stub makes public, with the package before it."""
    names = []
    for stub in sorted(
        path for package in ("extract", "datamodules", "probe") for path in (ROOT / package).rglob("*.pyi")
    ):
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        imports = (node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom))
        names += [f"{package}.{alias.asname or alias.name}" for node in imports for alias in node.names]
    assert len(names) > 150
    return names


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_page_and_only_these(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in PAGES}
    built = {page.parent.relative_to(site).as_posix() for page in site.rglob("index.html")}
    assert built == {page.removesuffix("/index") if page != "index" else "." for page in pages}
    assert not list(site.rglob("*.py"))


@pytest.mark.slow
def test_the_api_pages_document_every_public_name(site: Path) -> None:
    """On its package's page with signature and docstring; the short names as links to these."""
    text = "".join(page.read_text() for page in sorted((site / "api").rglob("index.html")))
    entries = set(re.findall(r'<h\d id="([\w.]+)"', text))
    links = set(re.findall(r'<a [^>]*href="[^"]*#[\w.]+"[^>]*><code>([\w.]+)</code></a>', text))
    short = {name for name in public_names() if name.split(".")[0] != "datamodules" and name.count(".") == 1}
    assert sorted(short - links) == []
    assert sorted(set(public_names()) - short - entries) == []


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_has_short_lines_and_small_cells(page: Path) -> None:
    text = page.read_text()
    assert [line for line in text.splitlines() if len(line) >= 160] == []
    assert [cell for cell in cells(text) if len(cell) > 140 or "<br" in cell] == []


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_and_pictures_of_a_page_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_links_of_the_navigation_to_the_repository_are_files() -> None:
    home = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
    targets = re.findall(r": (https?:\S+)", (ROOT / "mkdocs.yml").read_text())
    assert len(targets) == 2
    for target in targets:
        assert target.startswith(f"{home}/blob/main/")
        assert (ROOT / target.removeprefix(f"{home}/blob/main/")).is_file()


def test_pictures_of_the_documentation_are_used() -> None:
    text = "".join(page.read_text() for page in TEXTS)
    assert [file.name for file in (ROOT / "docs" / "figures").iterdir() if file.name not in text] == []


@pytest.mark.parametrize("page", [*TEXTS, NOTEBOOK], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_uses_the_words_of_the_field(page: Path) -> None:
    text = page.read_text()
    if page == NOTEBOOK:
        text = "".join(
            line for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown" for line in cell["source"]
        )
    found = {
        f"{match[0]}: {better}"
        for words, better in OTHER_WORDS.items()
        for match in re.finditer(rf"\b({words})\b", prose(text), flags=re.IGNORECASE)
    }
    assert found == set()


def test_the_readme_takes_two_minutes() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 90
    assert len(prose(text).split()) < 700


def test_help_names_every_command_and_every_shipped_experiment() -> None:
    assert {"report", "overlap", "ranking", "trace"} <= set(COMMANDS)
    for config in (
        "extract/niah",
        "extract/hotpotqa",
        "probe",
        "regressor",
        "dynamism",
        "correlation",
        "offset_probes",
        "ablation/niah",
        "rag",
    ):
        assert f"configs/{config}.yaml" in HELP
    lines = HELP.splitlines()
    assert len(lines) <= 48 and max(map(len, lines)) <= 120
