"""`lightning test -c configs/attribution.yaml`: its files, going on after a stop, given answers, refusals."""

import csv
import json
from pathlib import Path

import pytest
import torch

from extract.llm import LLM
from extract.tasks import PromptBatch
from extract.tasks.sources import SyntheticQA
from probe.attribution import AblatedRuns, Attribution, CopyingHeads, LeaveOneOut, SourcedPrompts, record_answers
from probe.attribution.experiment import Evaluation, attribution_trials
from probe.attribution.masks import held_out_masks
from probe.attribution.metrics import linear_datamodeling_score
from tests.conftest import Run
from tests.helpers.measured import Measure, measured

METHODS = ["copying heads", "contribution", "words in common", "mean attention + 4 runs", "leave-one-out"]


@pytest.fixture
def measure(run: Run, tiny_llm_folder: Path, tmp_path: Path) -> Measure:
    """Results of a run of three answers of the tiny LLM, or its refusal."""
    return measured("attribution", run, tiny_llm_folder, tmp_path)


def test_a_run_leaves_every_trial_and_every_metric_and_goes_on(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure()
    assert list(found["methods"]) == METHODS == list(found["metrics"]["all"])
    assert (found["experiment"], found["answers"], found["given_answers"]) == ("attribution", 3, False)
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(METHODS)
    for name in METHODS:
        cell = found["metrics"]["all"][name]
        mine = [row for row in rows if row["method"] == name]
        for metric in ("lds", "drop_1", "drop_2", "recall"):
            values = [float(row[metric]) for row in mine]
            assert cell[metric]["value"] == pytest.approx(sum(values) / 3)
            assert cell[metric]["n"] == 3
        assert {int(row["sources"]) for row in mine} == {8}
    runs = {name: found["metrics"]["all"][name]["runs"]["value"] for name in METHODS}
    assert runs == dict(zip(METHODS, [0, 0, 0, 4, 8], strict=True))
    assert found["metrics"]["all"]["leave-one-out"]["largest_drop_share"]["value"] == 1
    assert found["metrics"]["all"]["copying heads"]["forward_tokens"]["value"] == 0
    assert len(found["pairs"]["all"]) == 10 * 7
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"results.json", "results.csv", "lds_by_cost.png", "lds_by_cost.pdf"}
    (tmp_path / "trials" / "000001.json").unlink()
    ran, step = list[int](), Attribution.test_step

    def counted(self: Attribution, batch: PromptBatch) -> None:
        ran.append(batch.number)
        step(self, batch)

    monkeypatch.setattr(Attribution, "test_step", counted)
    assert measure()["metrics"] == found["metrics"]
    assert ran == [1]
    assert "other settings (evaluation.held_out" in measure("--model.init_args.evaluation.held_out", 7)


def test_given_answers_are_attributed(measure: Measure, tmp_path: Path) -> None:
    """Those of a file, which another model wrote; a document without text is no source."""
    lines = [
        {
            "id": str(n),
            "question": "Who sings?",
            "answer": f"Ada number {n} sings.",
            "context": [["Ada", ["Ada sings. ", "She is tall."]], ["Bo", ["Bo left."]]],
            "supporting_facts": [["Ada", 0]],
        }
        for n in range(3)
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    task = {
        "class_path": "extract.MultiHopQA",
        "init_args": {"source": {"class_path": "extract.HotpotQA", "init_args": {"files": [str(file)]}}},
    }
    task["init_args"] |= {"teacher_forcing": True, "style": "short", "budget": None}  # type: ignore[operator]
    found = measure("--data.init_args.task", json.dumps(task))
    assert isinstance(found, dict), found
    assert (found["given_answers"], found["answers"], found["correct"]) == (True, 3, 3)
    trials = json.loads((tmp_path / "trials" / "000000.json").read_text())["trials"]
    assert [trial["answer"] for trial in trials[:: len(METHODS)]] == ["Ada number 0 sings.", "Ada number 1 sings."]


def test_trials_are_those_of_each_method_alone(llm: LLM, tiny_llm_folder: Path) -> None:
    """Methods share their runs; held-out runs, drops and costs are those of single forwards."""
    model = LLM(str(tiny_llm_folder))
    (question,) = SyntheticQA(1, seed=4).load().records
    prompt = SourcedPrompts(model).build(question.question, question.passages)
    (answer,) = record_answers(model, [prompt], budget=5)
    evaluation, methods = Evaluation(held_out=5, top=(2,)), [CopyingHeads(fallback="mean"), LeaveOneOut()]
    together = attribution_trials(model, methods, evaluation, question, prompt, answer)
    for method, trial in zip(methods, together, strict=True):
        (alone,) = attribution_trials(model, [method], evaluation, question, prompt, answer)
        assert trial["metrics"] == pytest.approx(alone["metrics"], nan_ok=True)
        scores, masks = torch.tensor(trial["scores"]), held_out_masks(5, 8, seed=0)
        runs = AblatedRuns(model, prompt, answer.tokens)
        lds = linear_datamodeling_score(scores, masks, runs.log_probs(masks).sum(1))
        assert trial["metrics"]["lds"] == pytest.approx(lds)
        kept = torch.ones(1, 8, dtype=torch.bool)
        kept[0, scores.argsort(descending=True)[:2]] = False
        drop = float(answer.log_probs.sum() - runs.log_probs(kept).sum())
        assert trial["metrics"]["drop_2"] == pytest.approx(drop, abs=1e-4)
    facts = {(n, *fact) for n, passage in enumerate(question.passages) for fact in passage.evidence}
    assert len(facts) == 2
    ranked = [n for n, s in enumerate(prompt.sources) if (s.document, s.start, s.end) in facts]
    scores = torch.tensor(together[0]["scores"])
    assert together[0]["metrics"]["recall"] == len(set(scores.argsort(descending=True)[:2].tolist()) & set(ranked)) / 2


def test_bad_settings_are_one_line_before_weights_load(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LLM, "model", property(lambda _: pytest.fail("weights were loaded")))
    two = '[{"class_path": "probe.attribution.Lexical"}, {"class_path": "probe.attribution.Lexical"}]'
    ranges = {name: {"low": 20, "high": 30} for name in ("lengths", "depths")}
    niah = json.dumps({"class_path": "extract.NIAH", "init_args": ranges})
    for wrong, args in (
        ("model.methods: at least one attribution method", ("--model.init_args.methods", "[]")),
        ("several are named 'words in common'", ("--model.init_args.methods", two)),
        ("attribution needs the full context", ("--data.init_args.task.init_args.context", "gold")),
        ("runs on datamodules.Prompts with extract.MultiHopQA", ("--data.init_args.task", niah)),
        ("held_out", ("--model.init_args.evaluation.held_out", "0")),
        ("top", ("--model.init_args.evaluation.top", "[0]")),
    ):
        said = measure(*args)
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1
        assert wrong in errors[0]
