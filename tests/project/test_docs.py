"""The documentation: its site builds strictly, its commands parse, its Python runs, and what it names exists."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from probe.cli.main import HELP, main
from tests.conftest import ROOT, Run

PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md"]
NOTEBOOK = ROOT / "notebooks" / "heads_over_time.ipynb"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


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
    callbacks = yaml.safe_load((ROOT / "configs/demo/probe.yaml").read_text())["trainer"]["callbacks"]
    callbacks[0]["init_args"]["dirpath"] = str(folder / "ckpts" / "demo")
    where = ["--store", str(folder / "stores" / "demo-niah"), "--trainer.default_root_dir", str(folder / "runs")]
    few = ["-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_docs.yaml"]
    assert main(["predict", *few, *where]) == 0
    small = ["--trainer.max_epochs", "8", "--model.init_args.hidden", "[64]", "--trainer.logger", "false"]
    assert main(["fit", "-c", "configs/probe.yaml", *where, *small, "--trainer.callbacks", str(callbacks[:1])]) == 0
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
def test_the_notebook_runs_and_silencing_changes_the_answer(demo: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept without outputs
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(demo)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    answers = dict(re.findall(r"^(wanted|before|ablated) +(.*)$", said, flags=re.MULTILINE))
    assert answers["wanted"] in answers["before"]
    assert answers["wanted"] not in answers["ablated"]


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)[1:]
    if words[0] in ("report", "overlap", "ranking", "trace"):
        assert words[0] in HELP
        return
    if "--help" in words or words[0] == "STAGE" or "{" in words[0]:
        return
    monkeypatch.chdir(ROOT)
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
    for page in PAGES:
        for text in re.findall(r"`([^`\n]+)`", page.read_text()):
            if re.fullmatch(r"(extract|datamodules|probe)(\.\w+)+", text):
                names.add(text)
            if re.fullmatch(r"(configs|notebooks|tests)/[\w./-]+\w", text):
                files.add(text)
    assert len(names) > 40 and len(files) > 10
    for name in names:
        resolve(name)
    assert [file for file in files if not (ROOT / file).exists()] == []


def choices() -> list[tuple[str, str]]:
    rows = re.findall(r"\| `(configs/[^`]+)` \| `([^`]+)` \|", (ROOT / "docs" / "choices.md").read_text())
    assert len(rows) > 15
    return rows


@pytest.mark.parametrize(("config", "key"), choices())
def test_open_choices_are_keys_of_their_config(config: str, key: str) -> None:
    found = yaml.safe_load((ROOT / config).read_text())
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(ROOT / "docs").with_suffix("") for page in PAGES}
    built = (tmp_path / "site" / "api" / "index.html").read_text()
    for name in ("ScoreStore", "write_report", "push_to_hub", "answer"):
        assert name in built
    assert len(list((tmp_path / "site").rglob("index.html"))) == len(pages)


def test_help_names_every_command_and_every_shipped_experiment() -> None:
    for name in ("report", "overlap", "ranking", "trace"):
        assert f"\n  {name} " in HELP
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
