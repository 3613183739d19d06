"""`lightning test -c configs/diagnosis.yaml`: its files, going on after a stop, given thresholds, refusals."""

import csv
import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from extract.llm import LLM
from extract.tasks import PromptBatch
from probe import Diagnosis
from probe.diagnosis import CAUSES, CHANCE, INTERVENTIONS
from tests.conftest import Run
from tests.helpers.measured import Measure, measured

QUESTIONS = {
    "class_path": "extract.MultiHopQA",
    "init_args": {
        "source": {"class_path": "extract.SyntheticQA", "init_args": {"count": 4, "seed": 2}},
        "budget": 8,
        "texts": {"examples": []},
    },
}


@pytest.fixture
def measure(run: Run, tiny_llm_folder: Path, tmp_path: Path) -> Measure:
    """Results of a run of six needle answers of the tiny LLM, or its refusal."""
    return measured("diagnosis", run, tiny_llm_folder, tmp_path)


def _check_cards(run: Run, tmp_path: Path) -> None:
    """A page of the failed answers, and what it refuses."""
    results, page = tmp_path / "out" / "results.json", tmp_path / "cards.html"
    assert run("diagnose", results, "--output", page)[0] == 0
    text = html.unescape(page.read_text())
    assert text.count('<article class="card">') == 6
    trials = [
        one for batch in (0, 1) for one in json.loads((tmp_path / "trials" / f"{batch:06d}.json").read_text())["trials"]
    ]
    for one in trials:
        assert one["gold"] in text
        assert f"token {one['token']['position'] + 1} of {one['token']['of']}" in text
    # Results of earlier versions name no reported causes: the page is the same.
    former = {name: value for name, value in json.loads(results.read_text()).items() if name != "sha256"}
    assert former.pop("supported") == []
    assert sum(former.pop("reported")["all"].values()) == 6
    (tmp_path / "former.json").write_text(json.dumps(former))
    assert run("diagnose", tmp_path / "former.json", "--output", tmp_path / "former.html")[0] == 0
    assert (tmp_path / "former.html").read_text() == page.read_text()
    assert "src=" not in text and "http" not in text.split("</style>")[1]
    (tmp_path / "trials" / "000000.json").rename(tmp_path / "aside")
    code, said = run("diagnose", results, "--output", page)
    assert (code, "holds 3 of 6 answers" in said) == (2, True)
    (tmp_path / "aside").rename(tmp_path / "trials" / "000000.json")
    assert "no such file" in run("diagnose", tmp_path / "none")[1]
    other = tmp_path / "other.json"
    other.write_text('{"experiment": "rag"}')
    assert "results of another experiment" in run("diagnose", other)[1]


def test_a_run_leaves_every_answer_and_goes_on(
    measure: Measure, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure("--model.init_args.thresholds", "null")
    assert (found["experiment"], found["answers"], found["metric"]) == ("diagnosis", 6, "accuracy")
    assert found["failed"] == 6 == sum(found["causes"]["all"].values())
    assert found["thresholds"] is None  # a random model solves none
    assert found["causes"]["held_out"]["undecided"] == found["held_out_failures"] > 2
    assert found["prediction"] is None
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows] == list(range(6))
    held_out = [row for row in rows if row["training"] == "False"]
    assert len(held_out) == found["held_out_failures"]
    for name in INTERVENTIONS:
        values = [row[f"rescued_{name}"] == "True" for row in held_out]
        cell = found["interventions"]["all"][name]["rescued"]
        assert (cell["value"], cell["n"]) == (sum(values) / len(values), len(values))
    plots = {f"{name}.{suffix}" for name in ("causes_by_length_and_depth", "rescues") for suffix in ("png", "pdf")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "results.csv", *plots}
    (tmp_path / "trials" / "000001.json").unlink()
    ran, step = list[int](), Diagnosis.test_step

    def counted(self: Diagnosis, batch: PromptBatch) -> None:
        ran.extend([batch.number] if batch.samples else [])
        step(self, batch)

    monkeypatch.setattr(Diagnosis, "test_step", counted)
    # Thresholds sort the same trials; only the missing batch is recorded again.
    given = json.dumps({"attended": 0.0, "written": -1e6, "outvoted": 0.0})
    sorted_by = measure("--model.init_args.thresholds", given)
    assert (sorted_by["given_thresholds"], ran) == (True, [1])
    assert sorted_by["interventions"]["all"] == found["interventions"]["all"]
    assert sorted_by["causes"]["all"]["undecided"] < 6
    _check_cards(run, tmp_path)
    by_chance = measure()
    assert by_chance["thresholds"] == asdict(CHANCE) == {"attended": 0, "written": 2, "outvoted": 0.5}
    assert "other settings (early" in measure("--model.init_args.early", 3)


def test_questions_are_diagnosed(measure: Measure) -> None:
    found = measure("--data.init_args.task", json.dumps(QUESTIONS), "--model.init_args.interventions", "null")
    assert isinstance(found, dict), found
    assert (found["metric"], found["answers"], found["intervening"]) == ("em", 4, None)
    assert set(found["causes"]["all"]) == set(CAUSES)
    assert found["causes"]["all"]["cut_off"] == 4  # the random model's chains never end
    assert found["interventions"]["all"]["amplified"]["rescued"]["n"] == 0


def test_bad_settings_are_one_line_before_weights_load(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LLM, "model", property(lambda _: pytest.fail("weights were loaded")))
    arguments: dict[str, Any] = QUESTIONS["init_args"]  # type: ignore[assignment]
    without = {**QUESTIONS, "init_args": {**arguments, "context": "none"}}
    forced = {**QUESTIONS, "init_args": {**arguments, "teacher_forcing": True, "budget": None}}
    for wrong, args in (
        ("model.metric: the task has accuracy, rouge_l, not 'em'", ("--model.init_args.metric", "em")),
        ("needs evidence within a shown context", ("--data.init_args.task", json.dumps(without))),
        ("a diagnosis needs the model's own answers", ("--data.init_args.task", json.dumps(forced))),
        ("early", ("--model.init_args.early", "0")),
        ("share", ("--model.init_args.training.share", "1")),
        ("tail", ("--model.init_args.training.tail", "0.7")),
        ("factor", ("--model.init_args.interventions.factor", "0")),
        ("outvoted", ("--model.init_args.thresholds", '{"attended": 0, "written": 0, "outvoted": 2}')),
    ):
        said = measure(*args)
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, said
        assert wrong in errors[0]
