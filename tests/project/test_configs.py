"""Shipped configs: they parse, explain themselves, and have the paper's values."""

import inspect
import re
import shlex

import pytest
import yaml

from probe.metrics import Bootstrap
from probe.rag import RIND, Decoding, RagEvaluation, Windows
from tests.conftest import ROOT, Run

CONFIGS = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "configs").rglob("*.yaml"))}
OVERLAID = ("configs/demo/", "configs/rag/", "configs/regressor/", "configs/ablation/numbers.yaml")
OVERLAYS = {name for name in CONFIGS if name.startswith(OVERLAID)}
"""Configs of a few keys, each merged over one that explains them."""


def commands(config: str) -> list[list[str]]:
    """The command lines of a config's header, without `lightning`."""
    header = [line.removeprefix("#").strip() for line in CONFIGS[config].splitlines() if line.startswith("#")]
    return [shlex.split(line)[1:] for line in header if line.startswith("lightning ")]


def without_checkpoint(words: list[str]) -> list[str]:
    """A command that parses where nothing has been trained."""
    place = words.index("--ckpt_path") if "--ckpt_path" in words else len(words)
    return words[:place] + words[place + 2 :]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_command_of_a_header_parses(config: str, run: Run) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*without_checkpoint(commands(config)[0]), "--print_config")
    assert stop.value.code == 0


@pytest.mark.parametrize("config", CONFIGS)
def test_a_header_says_what_the_config_is_and_how_it_runs(config: str) -> None:
    first = CONFIGS[config].splitlines()[0]
    assert re.fullmatch(r"# .{10,51}", first), "one short line for `lightning configs`"
    assert max(map(len, CONFIGS[config].splitlines())) <= 120
    assert commands(config)
    assert all(["-c", config] in [words[i : i + 2] for i in range(len(words))] for words in commands(config))
    assert yaml.safe_load(CONFIGS[config])


@pytest.mark.parametrize("config", sorted(CONFIGS.keys() - OVERLAYS))
def test_every_value_is_explained(config: str) -> None:
    values = [line for line in CONFIGS[config].splitlines() if re.match(r"\s*\w+: \S", line.split("#")[0])]
    bare = [line.strip() for line in values if "# " not in line and not line.strip().startswith("class_path:")]
    assert bare == []


def test_the_demo_runs_the_commands_of_the_headers() -> None:
    makefile = (ROOT / "Makefile").read_text()
    demo = [name for name in CONFIGS if name.startswith("configs/demo/")]
    pairs = {" ".join(without_checkpoint(commands(name)[0])[1:]) for name in demo}
    assert set(re.findall(r"^[A-Z_]+ := (-c .*)$", makefile, flags=re.MULTILINE)) == pairs


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
    assert {name: task[name] for name in axes} == axes == {n: grid["model"]["init_args"]["heatmap"][n] for n in axes}
    assert (task["runs"], task["haystack_start"]) == (5, "zero")
    assert sweep["model"]["init_args"]["k"] == list(range(0, 75, 5))
    task = sweep["data"]["init_args"]["task"]["init_args"]
    assert (task["lengths"], task["runs"]) == ([5000], 20)
    heatmap = questions["model"]["init_args"]["heatmap"]
    assert heatmap["lengths"] == {"start": 250, "stop": 3750, "step": 500}
    assert heatmap["depths"] == {"start": 5, "stop": 95, "step": 10}
    assert heatmap["fade"]


def test_the_rag_config_has_the_papers_columns_and_the_defaults_of_the_code() -> None:
    """Table 4's five strategies first; every key as the callback has it, but for where trials go."""
    callback = yaml.safe_load((ROOT / "configs/rag.yaml").read_text())["rag"]["init_args"]
    names = [strategy["class_path"].rpartition(".")[2] for strategy in callback["strategies"]]
    heads = [f"{kind}HeadsStrategy" for kind in ("Dynamic", "Static", "DynamicRandom", "FixedRandom")]
    assert names[:5] == [*heads, "WithoutRAG"]
    assert callback["task"]["init_args"]["style"] == "chain"
    defaults = inspect.signature(RagEvaluation).parameters
    assert callback["allow_seen"] == defaults["allow_seen"].default
    assert Windows(**callback["windows"]) == Windows()
    assert Decoding(**callback["decoding"]) == Decoding()
    assert Bootstrap(**callback["bootstrap"]) == Bootstrap()
    assert callback["trigger"]["init_args"]["threshold"] == RIND().threshold == 1.0
