"""`lightning test -c configs/ablation/niah.yaml`: its files, going on after a kill, several processes, refusals."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import probe.experiments.ablation.ablation
from extract.generation import generate_ablated
from probe.cli.main import main

Measure = Callable[..., Any]
CONDITIONS = ["none", "dynamic", "static 2", "random 2 seed 0", "static 2 minus dynamic", "dynamic minus static 2"]


@pytest.fixture(scope="module")
def store(tiny_llm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of twelve prompts of the tiny LLM."""
    folder = tmp_path_factory.mktemp("tiny-store")
    args = (
        *("predict", "-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_niah.yaml"),
        *("--llm.init_args.name", tiny_llm_folder, "--store", folder / "store"),
        *("--data.init_args.task.init_args.runs", 12, "--trainer.default_root_dir", folder / "runs"),
    )
    assert main([str(arg) for arg in args]) == 0
    return folder / "store"


@pytest.fixture
def measure(measured: Measure, store: Path, tiny_llm_folder: Path, tmp_path: Path) -> Measure:
    """Results of a run of four prompts of the tiny LLM, or its refusal."""
    listed: list[Any] = [{"class_path": "probe.AblateDynamic"}]
    for name in ("AblateStatic", "AblateRandom", "AblateStaticMinusDynamic", "AblateDynamicMinusStatic"):
        listed.append({"class_path": f"probe.{name}", "init_args": {"n": 2}})

    def call(*args: object, trials: str = "trials") -> Any:
        return measured(
            *("ablation/niah", store, "-c", "tests/configs/tiny_ablation.yaml"),
            *("--llm.init_args.name", tiny_llm_folder, "--model.init_args.trials", tmp_path / trials),
            *("--model.init_args.conditions", json.dumps(listed), *args),
        )

    return call


def test_a_run_leaves_every_trial_and_every_metric(measure: Measure, tmp_path: Path) -> None:
    found = measure("--model.init_args.k", "[0, 1, 4]")
    names = ["none", "dynamic top 1", "dynamic top 4", *CONDITIONS[1:]]
    assert list(found["conditions"]) == names == list(found["metrics"]["all"])
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(names)
    for name in names:
        mine = [row for row in rows if row["condition"] == name]
        cell = found["metrics"]["all"][name]
        assert cell["rouge_l"]["n"] == 4
        assert cell["rouge_l"]["value"] == pytest.approx(sum(float(row["rouge_l"]) for row in mine) / 4)
        assert cell["accuracy"]["low"] <= cell["accuracy"]["value"] <= cell["accuracy"]["high"]
    ablated = {name: found["metrics"]["all"][name]["ablated"]["value"] for name in names}
    assert ablated["none"] == 0
    assert ablated["static 2"] == ablated["random 2 seed 0"] == 2
    assert 0 < ablated["dynamic top 1"] <= 1
    assert ablated["dynamic top 1"] < ablated["dynamic"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    plots = ("accuracy_by_length_and_depth", "rouge_l_by_length_and_depth", "k_sweep")
    assert files == {"results.json", "results.csv", *(f"{name}.{end}" for name in plots for end in ("png", "pdf"))}


def test_a_killed_run_goes_on_and_other_settings_are_refused(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = ("--model.init_args.heatmap", "null")
    whole, calls = measure(*bare, trials="whole"), list[int]()

    def broken(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("killed")
        return generate_ablated(*args)

    monkeypatch.setattr(probe.experiments.ablation.ablation, "generate_ablated", broken)
    assert "killed" in measure(*bare)
    again = measure(*bare)
    assert len(calls) == 3  # the first batch was not run again
    assert again["metrics"] == whole["metrics"]
    assert "keep: clean there, masked here" in measure("--model.init_args.intervention.keep", "masked")
    assert measure(*bare, "--data.init_args.batch_size", 4, trials="large")["metrics"] == whole["metrics"]


@pytest.mark.slow
def test_two_processes_find_what_one_does(measure: Measure) -> None:
    bare = ("--model.init_args.heatmap", "null")
    one = measure(*bare)
    two = measure(*bare, "--trainer.devices", 2, "--trainer.strategy", "ddp_spawn", trials="two")
    assert two["metrics"] == one["metrics"]
    assert two["pairs"] == one["pairs"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data.init_args.task.init_args.seed", 0), "give the task another seed"),
        (("--model.init_args.k", "[-1]"), "numbers of heads, 0 or more"),
        (
            (
                "--model.init_args.conditions",
                '[{"class_path": "probe.AblateStatic", "init_args": {"n": 99}}]',
            ),
            "12;",
        ),
        (
            (
                "--model.init_args.conditions",
                '["probe.AblateDynamic", "probe.AblateDynamic"]',
            ),
            "twice",
        ),
        (("--model.init_args.heatmap.lengths", "[1, 2, 4]"), "evenly spaced"),
        (("--model.init_args.static.top", 13), "the top 13"),
        (("--llm.init_args.name", "embedded:smollm2"), "but the llm is embedded:smollm2"),
        (("--data", "datamodules.ScoreRows"), "datamodules.Prompts"),
        (("--llm", "null"), "no `llm:`"),
    ],
)
def test_bad_settings_get_one_line(measure: Measure, args: tuple[object, ...], message: str, tmp_path: Path) -> None:
    said = measure(*args)
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert message in line
    assert not (tmp_path / "trials").exists()
