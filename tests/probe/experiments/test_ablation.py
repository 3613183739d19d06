"""`lightning test -c configs/ablation/niah.yaml`: its files, going on after a kill, several processes, refusals."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import probe.experiments.ablation.ablation
from datamodules import Sequences, Split
from extract.generation import generate_ablated
from extract.store import ScoreStore
from probe.cli.main import main
from probe.heads import read_store_heads

Measure = Callable[..., Any]
SETS = "random 2, 2 sets from seed 0"
CONDITIONS = ["none", "dynamic", "static 2", SETS, "static 2 minus dynamic", "dynamic minus static 2"]
# What is null is said: an item of a list keeps the settings of the config's item of the same class and place.
MATCHED = (
    '[{"class_path": "probe.AblateStatic", "init_args": {"n": null}},'
    '{"class_path": "probe.AblateStatic", "init_args": {"n": null, "per_step": true}},'
    '{"class_path": "probe.AblateRandom", "init_args": {"n": null, "sets": 2}}, "probe.AblateDynamic",'
    '{"class_path": "probe.AblateRandom", "init_args": {"n": 1, "seed": 3, "sets": 1}}]'
)


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
    listed[2]["init_args"]["sets"] = 2

    def call(*args: object, trials: str = "trials") -> Any:
        return measured(
            *("ablation/niah", store, "-c", "tests/configs/tiny_ablation.yaml"),
            *("--llm.init_args.name", tiny_llm_folder, "--model.init_args.trials", tmp_path / trials),
            *("--model.init_args.conditions", json.dumps(listed), *args),
        )

    return call


def test_a_run_leaves_every_trial_and_every_metric(
    measure: Measure, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.experiments.ablation.ablation.never_dynamic_note", lambda *given: repr(given))
    found = measure("--model.init_args.k", "[0, 1, 4]")
    ever = read_store_heads(str(store), "reasoning", 0.2, Split()).ever
    assert found["note"] == repr(((3, 2, 2, 2), ever, "training"))  # static.top, and the conditions of static heads
    names = ["none", "dynamic top 1", "dynamic top 4", *CONDITIONS[1:]]
    assert list(found["conditions"]) == names == list(found["metrics"]["all"])
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * (len(names) + 1)
    for name in names:
        members = ["random 2 seed 0", "random 2 seed 1"] if name == SETS else [name]
        mine = [float(row["rouge_l"]) for row in rows if row["condition"] in members]
        cell = found["metrics"]["all"][name]
        assert cell["rouge_l"]["n"] == 4
        assert cell["rouge_l"]["value"] == pytest.approx(sum(mine) / len(mine))
        assert cell["accuracy"]["low"] <= cell["accuracy"]["value"] <= cell["accuracy"]["high"]
    ablated = {name: found["metrics"]["all"][name]["ablated"]["value"] for name in names}
    assert ablated["none"] == 0
    assert ablated["static 2"] == ablated[SETS] == 2
    assert 0 < ablated["dynamic top 1"] <= 1
    assert ablated["dynamic top 1"] < ablated["dynamic"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    plots = ("accuracy_by_length_and_depth", "rouge_l_by_length_and_depth", "k_sweep")
    assert files == {"results.json", "results.csv", *(f"{name}.{end}" for name in plots for end in ("png", "pdf"))}


@pytest.mark.parametrize("threshold", [0.2, 0.8, 0.95, 1.0])
def test_heads_that_are_ever_dynamic_are_counted(store: Path, threshold: float) -> None:
    data = Sequences(store=str(store), target="reasoning")
    data.setup("test")
    training, opened, found = set(data.split_ids("train")), ScoreStore(store), set()
    for row in opened.samples().to_pylist():
        if row["id"] in training:
            scores = opened.steps(row["sample"]).reasoning.reshape(row["steps"], -1)
            found |= {head for step in scores.tolist() for head, score in enumerate(step) if score >= threshold}
    assert read_store_heads(str(store), "reasoning", threshold, Split()).ever == len(found)


def test_cells_are_those_of_the_real_depths(measure: Measure, tmp_path: Path) -> None:
    """A haystack whose only sentence end is early: all needles are there, whatever depth is requested."""
    (tmp_path / "hay.txt").write_text("It is so. " + "and one more word " * 40)
    task = "--data.init_args.task.init_args"
    text = (f"{task}.haystack", tmp_path / "hay.txt", f"{task}.haystack_start", "zero")
    found = measure(*text, f"{task}.depths", "[75]", f"{task}.runs", 2)
    for cells in found["heatmaps"]["metrics"]["accuracy"].values():
        assert {cell["depth"] for cell in cells} == {0}  # the cell of 25 %, not that of 75 %
    with (tmp_path / "out" / "results.csv").open() as file:
        assert all(0 < float(row["depth"]) < 40 for row in csv.DictReader(file))


def test_static_and_random_heads_are_as_many_as_dynamic_ones(measure: Measure, tmp_path: Path) -> None:
    """The number comes from the condition `dynamic` on these prompts, not from the store."""
    found = measure("--model.init_args.conditions", MATCHED)
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    average = sum(float(row["ablated"]) for row in rows if row["condition"] == "dynamic") / 4
    assert found["matched_heads"]["average"] == pytest.approx(average)
    assert found["metrics"]["all"]["dynamic"]["ablated"]["value"] == pytest.approx(average)
    assert found["average_dynamic_heads"]["non_empty"] != pytest.approx(average)
    n = max(1, round(average))
    sets = f"random {n}, 2 sets from seed 0"
    names = ["none", f"static {n}", f"static {average:.2f} per step", sets, "dynamic", "random 1 seed 3"]
    assert list(found["conditions"]) == names
    ablated = {name: found["metrics"]["all"][name]["ablated"]["value"] for name in names}
    assert ablated[f"static {n}"] == ablated[sets] == n
    numbers = {trial["steps"]: trial for trial in rows if trial["condition"] == f"static {average:.2f} per step"}
    assert all(0 <= float(trial["ablated"]) <= 12 for trial in numbers.values())


def test_a_matched_condition_that_is_listed_with_its_number_runs_once(measure: Measure) -> None:
    """All twelve heads are dynamic at every step, so the average is twelve, which another condition names."""
    every = ("--model.init_args.dynamic_heads.threshold", 0)
    listed = [{"class_path": "probe.AblateStatic", "init_args": {"n": n}} for n in (None, 12)]
    found = measure("--model.init_args.conditions", json.dumps(listed), *every)
    assert list(found["conditions"]) == ["none", "dynamic", "static 12"]
    assert found["metrics"]["all"]["static 12"]["ablated"]["value"] == 12


def test_the_former_rules_count_heads_of_the_store(measure: Measure) -> None:
    listed = '[{"class_path": "probe.AblateStatic", "init_args": {"n": null}}]'
    args = ("--model.init_args.conditions", listed, "--model.init_args.static.n")
    for rule, key in (("training", "all"), ("training_non_empty", "non_empty")):
        found = measure(*args, rule, trials=rule)
        average = found["average_dynamic_heads"][key]
        assert list(found["conditions"]) == ["none", f"static {round(average)}"]
        assert found["matched_heads"]["average"] == average


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_killed_in_either_pass_goes_on(measure: Measure, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Two batches in each of two passes: killed in the first, between the two, and in the second."""
    args = ("--model.init_args.heatmap", "null", "--model.init_args.conditions", MATCHED)
    whole, calls = measure(*args, trials="whole"), list[int]()

    def broken(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == stop:
            raise OSError("killed")
        return generate_ablated(*args)

    monkeypatch.setattr(probe.experiments.ablation.ablation, "generate_ablated", broken)
    assert "killed" in measure(*args)
    again = measure(*args)
    assert len(calls) == 5  # four batches, and the one that was killed
    assert (again["metrics"], again["conditions"]) == (whole["metrics"], whole["conditions"])
    assert measure(*args)["pairs"] == whole["pairs"] and len(calls) == 5


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
    again = measure(*bare, "--model.init_args.slots", 1)
    assert len(calls) == 3  # the first batch was not run again, and slots do not determine trials
    assert again["metrics"] == whole["metrics"]
    assert "keep: clean there, masked here" in measure("--model.init_args.intervention.keep", "masked")
    large = ("--data.init_args.batch_size", 4, "--model.init_args.slots", 3)
    assert measure(*bare, *large, trials="large")["metrics"] == whole["metrics"]


def test_mixed_precision_changes_no_trial(measure: Measure, tmp_path: Path) -> None:
    bare = ("--model.init_args.heatmap", "null")
    for precision in ("32-true", "bf16-mixed"):
        measure(*bare, "--trainer.precision", precision, trials=precision)
    for file in sorted((tmp_path / "32-true").iterdir()):
        assert (tmp_path / "bf16-mixed" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_spawn")
def test_two_processes_find_what_one_does(measure: Measure) -> None:
    bare = ("--model.init_args.heatmap", "null", "--model.init_args.conditions", MATCHED)
    one = measure(*bare)
    two = measure(*bare, "--trainer.devices", 2, "--trainer.strategy", "ddp_spawn", trials="two")
    assert two["metrics"] == one["metrics"]
    assert two["pairs"] == one["pairs"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data.init_args.task.init_args.seed", 0), "give the task another seed"),
        (("--model.init_args.k", "[-1]"), "model.init_args.k: at least 0, not -1"),
        (("--model.init_args.dynamic_heads.sink", 2), "leaves out sink 4 and local 64, but that of model.init_args"),
        (("--model.init_args.dynamic_heads.local", 9), "sink 4 and local 9: their reasoning scores differ"),
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
