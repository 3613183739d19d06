"""Masked dynamic RAG through the command line: results, traces, continuing after a kill, refusals, within `fit`."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import probe
import probe.rag.runner
import probe.results.artifacts
from extract.llm import LLM, LLMIdentity
from extract.utils import DataConsole
from probe.cli.main import main
from probe.rag import print_trace
from probe.rag.runner import RagRunner
from probe.report.exhibits.rag import view
from tests.conftest import Run
from tests.helpers.stores import IDENTITY, make_store

Evaluate = Callable[..., Any]
STRATEGIES = [
    "DynamicHeadsStrategy",
    "StaticHeadsStrategy",
    "DynamicRandomHeadsStrategy",
    "FixedRandomHeadsStrategy",
    "WithoutRAG",
    "OracleHeadsStrategy",
    "BM25",
    "GoldEvidence",
    "FullContext",
]
NAMES = ["dynamic", "static", "dynamic random", "fixed random", "w/o RAG", "oracle", "bm25", "gold", "full"]
RETRIEVING = [*NAMES[:4], "oracle", "bm25"]


@pytest.fixture(scope="module")
def identity(tiny_llm_folder: Path) -> LLMIdentity:
    return LLM(str(tiny_llm_folder)).identity


def fit(store: Path, out: Path, *more: object, **extra: Any) -> Path:
    """Two epochs of a small probe on a toy store; its checkpoint."""
    assert main(fit_command(store, out, *more, **extra)) == 0
    return out / "best.ckpt"


def fit_command(store: Path, out: Path, *more: object, **extra: Any) -> list[str]:
    checkpoint = {"dirpath": str(out), "filename": "best", "monitor": "val/loss", "enable_version_counter": False}
    callbacks = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": checkpoint},
        *([] if "rag" not in extra else [{"class_path": "probe.rag.RagValidation", "init_args": extra["rag"]}]),
    ]
    llm = {"class_path": "extract.LLM", "init_args": {"name": str(extra["llm"])}} if "llm" in extra else None
    args = (
        *("fit", "-c", "configs/regressor.yaml", "--store", store, "--model.init_args.hidden", "[16]"),
        *(
            "--trainer.max_epochs",
            2,
            "--trainer.log_every_n_steps",
            1,
            "--trainer.accelerator",
            "cpu",
            "--trainer.enable_progress_bar",
            "false",
        ),
        *("--trainer.callbacks", json.dumps(callbacks), "--trainer.default_root_dir", out),
        *("--trainer.logger.init_args.save_dir", out, *(("--llm", json.dumps(llm)) if llm else ()), *more),
    )
    return [str(arg) for arg in args]


@pytest.fixture(scope="module")
def store(identity: LLMIdentity, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy scores of the tiny LLM's heads."""
    return make_store(tmp_path_factory.mktemp("stores") / "toy", samples=60, identity=identity)


@pytest.fixture(scope="module")
def checkpoint(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(store, tmp_path_factory.mktemp("ckpt"))


def evaluation(tmp_path: Path, trials: str = "trials", **changes: Any) -> dict[str, Any]:
    """Arguments of `RagEvaluation`."""
    files = {"trials": str(tmp_path / trials), "folder": str(tmp_path / "out"), "bootstrap": {"resamples": 20}}
    return {**settings(**changes), **files}


def settings(**changes: Any) -> dict[str, Any]:
    """Arguments of both callbacks, for three questions of 12 tokens; a random model never ends its answer."""
    source = {"class_path": "extract.SyntheticQA", "init_args": {"count": 3, "seed": 1, "decoys": 0}}
    task = {"source": source, "style": "chain", "budget": 12, "force": 4, "texts": {"examples": []}}
    return {
        "task": {"class_path": "extract.MultiHopQA", "init_args": task | changes.pop("task", {})},
        "strategies": [{"class_path": f"probe.rag.{name}"} for name in changes.pop("strategies", STRATEGIES)],
        "trigger": {"class_path": "probe.rag.RIND", "init_args": {"threshold": 0.5}},
        "windows": {"heads": 2, "k": 3, "gap": 2, "width": 6},
        "decoding": {"draft_length": 5, "batch_size": 2} | changes.pop("decoding", {}),
        **changes,
    }


def rag_command(folder: Path, store: Path, ckpt: Path, llm: Path, *args: object, **changes: Any) -> list[str]:
    """`lightning test -c configs/rag.yaml` made small, with everything that it writes in a folder."""
    callbacks = [{"class_path": "probe.rag.RagEvaluation", "init_args": evaluation(folder, **changes)}]
    command = (
        *("test", "-c", "configs/rag.yaml", "--store", store, "--ckpt_path", ckpt),
        *("--llm.init_args.name", llm, "--trainer.accelerator", "cpu"),
        *("--trainer.default_root_dir", folder, "--trainer.logger.init_args.save_dir", folder),
        *("--trainer.enable_progress_bar", "false", "--trainer.callbacks", json.dumps(callbacks), *args),
    )
    return [str(arg) for arg in command]


@pytest.fixture
def evaluate(run: Run, store: Path, checkpoint: Path, tiny_llm_folder: Path, tmp_path: Path) -> Evaluate:
    """A small run: its results, or its refusal."""

    def call(*args: object, ckpt: Path = checkpoint, **changes: Any) -> Any:
        code, error = run(*rag_command(tmp_path, store, ckpt, tiny_llm_folder, *args, **changes))
        return error if code else json.loads((tmp_path / "out" / "results.json").read_text())

    return call


@pytest.fixture(scope="module")
def whole(store: Path, checkpoint: Path, tiny_llm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with every strategy and nothing changed."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(rag_command(folder, store, checkpoint, tiny_llm_folder)) == 0
    return folder


def traces(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out" / "traces.jsonl").read_text().splitlines()]


def test_a_run_writes_metrics_plots_and_every_trace(whole: Path, run: Run) -> None:
    found = json.loads((whole / "out" / "results.json").read_text())
    assert list(found["strategies"]) == NAMES
    assert found["questions"] == 3
    written = traces(whole)
    assert [(one["sample"], one["strategy"]) for one in written] == [(n, name) for n in range(3) for name in NAMES]
    grades = {"em", "f1", "answered", "em_last", "f1_last", "contains", "em_forced", "f1_forced"}
    assert grades <= set(found["strategies"]["dynamic"])
    assert grades <= {pair["metric"] for pair in found["pairs"]}
    assert all(one["continuation"] is not None and one["metrics"]["forced_tokens"] for one in written)
    assert len(view(found).tables) == 4  # grades beside EM and F1, and their differences
    for name in NAMES:
        metrics = [one["metrics"] for one in written if one["strategy"] == name]
        cells = found["strategies"][name]
        for metric, cell in cells.items():
            known = [one[metric] for one in metrics if one[metric] is not None]
            assert cell["n"] == len(known)
            assert cell["value"] == (pytest.approx(np.mean(known)) if known else None)  # JSON has no NaN
        assert (cells["retrievals"]["value"] > 0) == (name in RETRIEVING)
    assert found["strategies"]["gold"]["recall"]["value"] == found["strategies"]["gold"]["precision"]["value"] == 1
    assert found["strategies"]["full"]["recall"]["value"] == 1
    with (whole / "out" / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(written)
    files = {path.name for path in (whole / "out").iterdir()}
    assert files == {"results.json", "results.csv", "traces.jsonl", "strategies.png", "strategies.pdf"}
    code, _ = run("trace", whole / "out" / "traces.jsonl", "--strategy", "oracle", "--count", "2")
    assert code == 0
    code, error = run("trace", whole / "out" / "traces.jsonl", "--strategy", "none such")
    assert code == 2
    assert "holds no run" in error


def test_rounds_of_a_trace_are_consistent(whole: Path) -> None:
    rounds = 0
    for one in traces(whole):
        first, end = one["context"]
        text = ""
        for turn in one["rounds"]:
            fires = turn["hit"] is not None
            assert fires == (turn["windows"] is not None) == (turn["rewrite"] is not None)
            if fires:
                assert f"{text}{turn['draft']}".startswith(turn["kept"])
                assert all(first <= window["start"] < window["end"] <= end for window in turn["windows"])
                assert (turn["heads"] is None) == (one["strategy"] == "bm25")
                assert turn["words"][turn["hit"]]["value"] > 0.5
            text = turn["kept"] + (turn["rewrite"] or "")
            rounds += fires
        assert text == one["text"]
        assert one["stop"] in ("length", "ended", "answered")
    assert rounds > len(RETRIEVING)


def test_batches_masks_and_order_of_questions_change_no_answer(evaluate: Evaluate, whole: Path, tmp_path: Path) -> None:
    expected = traces(whole)
    for number, changes in enumerate(({"batch_size": 1}, {"batch_size": 3, "mask": "in_place"})):
        evaluate(trials=f"other-{number}", decoding=changes)
        for one, other in zip(expected, traces(tmp_path), strict=True):
            assert [one["id"], one["strategy"], one["text"]] == [other["id"], other["strategy"], other["text"]]
            assert [turn["windows"] for turn in one["rounds"]] == [turn["windows"] for turn in other["rounds"]]
            assert one["metrics"]["forward_tokens"] <= other["metrics"]["forward_tokens"]


def test_with_everything_visible_concat_is_packed(evaluate: Evaluate, tmp_path: Path) -> None:
    texts: list[list[str]] = []
    for mask in ("packed", "concat"):
        assert evaluate(trials=mask, decoding={"mask": mask}, strategies=["FullContext"])["mask"] == mask
        texts.append([one["text"] for one in traces(tmp_path)])
    assert texts[0] == texts[1]


def test_control_sequences_in_a_trace_have_no_effect(whole: Path) -> None:
    evil = "a\x1b]0;owned\x07b\x1b[2J\tc"
    oracle = next(one for one in traces(whole) if one["strategy"] == "oracle")
    one = oracle | {"question": evil, "gold": evil, "text": evil, "id": evil}
    one["rounds"][0]["words"][0]["text"] = one["rounds"][0]["kept"] = evil
    for turn in one["rounds"]:
        for window in turn["windows"] or ():
            window["text"] = evil
        turn["rewrite"] = turn["rewrite"] and evil
    out = io.StringIO()
    print_trace(one, Console(file=out, force_terminal=True, width=200))
    assert "\x1b]" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert out.getvalue().count("]0;owned") > 6


def test_a_killed_run_continues_and_other_settings_are_refused(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"strategies": ["DynamicHeadsStrategy", "OracleHeadsStrategy"]}
    whole = evaluate(trials="whole", **few)
    together, calls = probe.rag.runner.run_together, list[int]()

    def broken(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("killed")
        together(*args)

    monkeypatch.setattr(probe.rag.runner, "run_together", broken)
    assert "killed" in evaluate(**few)
    assert len(list((tmp_path / "trials").glob("0*.json"))) == 1
    again = evaluate(**few)
    assert isinstance(again, dict), again
    assert len(calls) == 3
    assert again["strategies"] == whole["strategies"]
    assert "other settings" in evaluate(decoding={"draft_length": 4}, **few)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_spawn")
def test_two_processes_share_the_questions(evaluate: Evaluate) -> None:
    few = {"strategies": ["DynamicHeadsStrategy", "BM25"], "decoding": {"batch_size": 1}}
    alone = evaluate(trials="alone", **few)
    both = evaluate("--trainer.devices", 2, "--trainer.strategy", "ddp_spawn", trials="both", **few)
    assert both["strategies"] == alone["strategies"]


def test_wrong_probes_and_stores_are_refused_by_name(
    evaluate: Evaluate, run: Run, store: Path, identity: LLMIdentity, tmp_path: Path
) -> None:
    other = make_store(tmp_path / "other", samples=40, identity=IDENTITY, name="other")
    stranger = fit(other, tmp_path / "stranger")
    error = evaluate("--store", other, ckpt=stranger)
    assert "holds heads of toy" in error
    assert str(identity.layers) in error
    assert "trained on toy" in evaluate(ckpt=stranger)
    code, _ = run(
        *("fit", "-c", "configs/probe.yaml", "-c", "tests/configs/tiny_probe.yaml", "--store", store),
        *("--trainer.default_root_dir", tmp_path, "--trainer.logger.init_args.save_dir", tmp_path),
        *("--trainer.callbacks", json.dumps([_checkpoint(tmp_path / "classifier")])),
    )
    assert code == 0
    assert "ProbeClassifier" in evaluate(ckpt=tmp_path / "classifier" / "best.ckpt")
    classifier = ("--model.class_path", "probe.ProbeClassifier", "--data.init_args.target", "copy_paste")
    error = evaluate(*classifier, ckpt=tmp_path / "classifier" / "best.ckpt")
    assert "needs a regressor's checkpoint" in error
    assert "ProbeClassifier" in error


def _checkpoint(folder: Path) -> dict[str, Any]:
    init = {"dirpath": str(folder), "filename": "best", "monitor": "val/loss"}
    return {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": init}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategies": []}, "strategies need distinct names"),
        ({"strategies": ["GoldEvidence", "GoldEvidence"]}, "strategies need distinct names"),
        ({"windows": {"heads": 13}}, "13 heads of an LLM that has 12"),
        ({"windows": {"k": 0}}, "trainer.callbacks.0.init_args.windows.k: at least 1, not 0"),
        ({"decoding": {"draft_length": 0}}, "trainer.callbacks.0.init_args.decoding.draft_length: at least 1"),
        ({"task": {"context": "gold"}}, "context: full"),
        ({"task": {"teacher_forcing": True}}, "teacher_forcing"),
    ],
)
def test_bad_settings_are_refused(evaluate: Evaluate, changes: dict[str, Any], words: str) -> None:
    assert words in evaluate(**changes)


def test_questions_of_the_probes_own_training_are_refused(
    evaluate: Evaluate, identity: LLMIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of the toy store that are those of the questions: SyntheticQA calls its third one fiction-1-2."""
    seen = make_store(tmp_path / "seen", samples=60, identity=identity, name="x", ids="fiction-1-{}")
    ckpt = fit(seen, tmp_path / "knows")
    assert "were training or validation samples" in evaluate("--store", seen, ckpt=ckpt)
    few, screen = {"strategies": ["DynamicHeadsStrategy"]}, io.StringIO()
    monkeypatch.setattr(probe.results.artifacts, "DataConsole", lambda: DataConsole(file=screen, width=200))
    found = evaluate("--store", seen, ckpt=ckpt, allow_seen=True, **few)
    assert (found["questions"], found["allow_seen"], found["seen_questions"]) == (3, True, 3)
    assert "3 of 3 questions are training or validation samples" in " ".join(screen.getvalue().split())
    assert "3 of 3 questions are training or validation samples" in view(found).tables[0].note


def test_a_given_blend_is_used_and_recorded_and_a_given_structure_refused(evaluate: Evaluate, tmp_path: Path) -> None:
    few = {"strategies": ["DynamicHeadsStrategy"]}
    assert evaluate(trials="own", **few)["probe_blend"] == 0
    assert evaluate("--model.init_args.blend", 0.9, trials="blended", **few)["probe_blend"] == 0.9
    assert "probe_blend: 0.0 there, 0.9 here" in evaluate("--model.init_args.blend", 0.9, trials="own", **few)
    assert "model.init_args.hidden: [8] here" in evaluate("--model.init_args.hidden", "[8]", trials="other", **few)
    assert not (tmp_path / "other").exists()


def test_held_out_questions_are_reported_as_such(evaluate: Evaluate) -> None:
    found = evaluate(strategies=["DynamicHeadsStrategy"])
    assert (found["allow_seen"], found["seen_questions"]) == (False, 0)
    assert "validation samples" not in view(found).tables[0].note


@pytest.mark.parametrize(
    ("trained", "evaluated", "words"),
    [
        ({"sink": 2}, {}, "Eq. 2 of rag strategy 'oracle' leaves out sink 4 and local 64, but"),
        ({"offset": 1}, {}, "this probe predicts the scores of 1 steps later"),
        ({"offset": 1}, {"offset": 1}, "this probe predicts the scores of 1 steps later"),
    ],
)
def test_probes_of_other_scores_are_refused(
    trained: dict[str, int],
    evaluated: dict[str, int],
    words: str,
    evaluate: Evaluate,
    identity: LLMIdentity,
    tmp_path: Path,
) -> None:
    """Retrieval takes the heads of the step itself, and Oracle the scores that the probe was trained on."""
    sink = {name: value for name, value in trained.items() if name == "sink"}
    other = make_store(tmp_path / "other", samples=60, identity=identity, name="other", **sink)
    offset = ("--data.init_args.offset", trained.get("offset", 0))
    ckpt = fit(other, tmp_path / "ckpt", *offset)
    options = ("--store", other, "--data.init_args.offset", evaluated.get("offset", 0))
    assert words in evaluate(*options, ckpt=ckpt)
    assert not (tmp_path / "trials").exists()


def test_within_fit_metrics_are_logged_and_strategies_without_the_probe_run_once(
    store: Path, tiny_llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = list[list[str]]()
    run_batch = RagRunner.run

    def counting(runner: RagRunner, numbers: Any, strategies: Any, ended: Any) -> Any:
        ran.append([one.name for one in strategies] * len(numbers))
        return run_batch(runner, numbers, strategies, ended)

    monkeypatch.setattr(RagRunner, "run", counting)
    rag = settings(
        strategies=["DynamicHeadsStrategy", "OracleHeadsStrategy"], every_n_epochs=1, decoding={"batch_size": 3}
    )
    fit(store, tmp_path / "fit", "--trainer.num_sanity_val_steps", 2, rag=rag, llm=tiny_llm_folder)
    assert ran == [["oracle"] * 3, ["dynamic"] * 3, ["dynamic"] * 3]  # and nothing before training
    for tag in ("rag/f1/dynamic", "rag/em/oracle", "rag/first_recall/dynamic"):
        assert len(logged(tmp_path / "fit", tag)) == 2


def test_mixed_precision_changes_no_answer(evaluate: Evaluate, whole: Path, tmp_path: Path) -> None:
    found = json.loads((whole / "out" / "results.json").read_text())
    assert evaluate("--trainer.precision", "bf16-mixed", trials="mixed")["strategies"] == found["strategies"]
    for file in sorted((whole / "trials").iterdir()):
        assert (tmp_path / "mixed" / file.name).read_bytes() == file.read_bytes()
    assert (found["llm"]["dtype"], found["probe_dtype"]) == ("float32", "float32")
    assert "trainer.precision bf16-true" in evaluate("--trainer.precision", "bf16-true", trials="true")


def test_a_probe_that_trains_under_mixed_precision_is_evaluated_outside_of_it(
    store: Path, tiny_llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rag = settings(strategies=["OracleHeadsStrategy", "DynamicHeadsStrategy"], every_n_epochs=2)
    dtypes = set[torch.dtype]()
    predict = probe.ProbeRegressor.predict_scores

    def watched(self: probe.ProbeRegressor, hidden: torch.Tensor) -> torch.Tensor:
        scores = predict(self, hidden)
        dtypes.add(scores.dtype)
        return scores

    monkeypatch.setattr(probe.ProbeRegressor, "predict_scores", watched)
    for precision in ("32-true", "bf16-mixed"):
        options = ("--trainer.precision", precision, "--trainer.enable_model_summary", "false")
        fit(store, tmp_path / precision, *options, rag=rag, llm=tiny_llm_folder)
    for tag in ("rag/f1/oracle", "rag/first_recall/oracle"):
        assert logged(tmp_path / "bf16-mixed", tag) == logged(tmp_path / "32-true", tag)
    assert dtypes == {torch.float32}


def logged(folder: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(next(folder.rglob("events.*")).parent))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_spawn")
def test_within_fit_means_are_over_the_questions_of_all_processes(
    store: Path, tiny_llm_folder: Path, tmp_path: Path
) -> None:
    """Three questions on two processes: the mean of their means would be another number."""
    rag = settings(strategies=["OracleHeadsStrategy"], every_n_epochs=2, decoding={"batch_size": 3})
    fit(store, tmp_path / "one", rag=rag, llm=tiny_llm_folder)
    two = ("--trainer.devices", 2, "--trainer.strategy", "ddp_spawn")
    fit(store, tmp_path / "two", *two, rag=rag, llm=tiny_llm_folder)
    for tag in ("rag/f1/oracle", "rag/first_recall/oracle"):
        assert logged(tmp_path / "two", tag) == pytest.approx(logged(tmp_path / "one", tag))


def test_training_questions_are_refused_before_the_probe_trains(
    identity: LLMIdentity, tiny_llm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = make_store(tmp_path / "seen", samples=60, identity=identity, name="x", ids="fiction-1-{}")
    rag = settings(strategies=["DynamicHeadsStrategy"], every_n_epochs=2)
    assert main(fit_command(seen, tmp_path / "fit", rag=rag, llm=tiny_llm_folder)) != 0
    assert "were training or validation samples" in capsys.readouterr().err
    assert not list((tmp_path / "fit").rglob("*.ckpt"))
