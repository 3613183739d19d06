"""From ablation effects to an attribution with learned weights, by the shipped configs; going on after a stop."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from extract.errors import UserError
from extract.llm import LLM
from extract.tasks import PromptBatch
from extract.tasks.sources import SyntheticQA
from extract.utils import hashed_json
from probe.attribution import AblatedRuns, EffectExtraction, HeadWeights, SourcedPrompts, record_answers
from probe.attribution.learned import EffectStore
from probe.cli.main import main
from probe.models import load, load_trained, read_checkpoint, save_pretrained
from tests.conftest import Run
from tests.helpers.signals import signal_at

QUESTIONS = 24


@pytest.fixture(scope="module")
def made(tiny_llm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of effects of the tiny LLM."""
    folder = tmp_path_factory.mktemp("learned")
    code, _ = effects(lambda *args: (main([str(arg) for arg in args]), ""), tiny_llm_folder, folder / "store")
    assert code == 0
    return folder


def effects(run: Run, llm: Path, store: Path, *args: object) -> tuple[int, str]:
    return run(
        *("predict", "-c", "configs/attribution/effects.yaml", "--llm.init_args.name", llm, "--store", store),
        *("--data.init_args.task.init_args.source.init_args.count", QUESTIONS),
        *("--data.init_args.task.init_args.budget", 4, "--model.init_args.ablations", 14),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--trainer.default_root_dir", store.parent / "runs", *args),
    )


def fit(run: Run, store: Path, checkpoints: Path, *args: object, static: object = None) -> tuple[int, str]:
    """Static weights; with `static` dynamic ones, which begin at that checkpoint, or at none ("null")."""
    dynamic = ("-c", "configs/attribution/dynamic.yaml", "--model.init_args.static", static) if static else ()
    return run(
        *("fit", "-c", "configs/attributor.yaml", *dynamic, "--store", store, "--data.init_args.batch_size", 4),
        *("--checkpoint.init_args.dirpath", checkpoints, "--trainer.max_epochs", 3, "--trainer.accelerator", "cpu"),
        *("--trainer.logger", "false", "--trainer.default_root_dir", checkpoints.parent / "runs"),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", *args),
    )


def test_effects_are_those_of_single_answers_and_go_on(
    made: Path, run: Run, tiny_llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every array is what recording and running one answer alone gives; a missing or damaged batch is run again."""
    store, model = EffectStore(made / "store"), LLM(str(tiny_llm_folder))
    held = {one.id: one for one in store.read()}
    assert len(held) == QUESTIONS
    question = SyntheticQA(QUESTIONS, seed=101).load().records[3]
    prompt = SourcedPrompts(model).build(question.question, question.passages)
    (record,) = record_answers(model, [prompt], budget=4)
    (row,) = [row for file in made.glob("store/0*.json") for row in _rows(file) if row["question"] == question.question]
    found = held[row["id"]]
    assert found.record.tokens.equal(record.tokens)
    assert found.record.texts == record.texts
    assert found.record.copies.equal(record.copies)
    for name in ("attention", "contribution"):
        torch.testing.assert_close(getattr(found.record, name), getattr(record, name), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.record.hidden, record.hidden, atol=1e-5, rtol=1e-4)
    runs = AblatedRuns(model, prompt, record.tokens)
    assert found.masks.equal(runs.sampled(14))
    torch.testing.assert_close(found.run_log_probs, runs.log_probs(found.masks), atol=1e-5, rtol=1e-4)
    assert row["forward_tokens"] == runs.cost(found.masks)

    before = {file.name: file.read_bytes() for file in made.glob("store/0*")}
    (made / "store" / "000000.json").unlink()
    damaged = made / "store" / "000002.npz"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    code, said = fit(run, made / "store", made / "none")
    assert code == 2
    assert "16 of 24 answers are finished" in said
    ran, step = list[int](), EffectExtraction.predict_step

    def counted(self: EffectExtraction, batch: PromptBatch) -> int:
        ran.append(batch.number)
        return step(self, batch)

    monkeypatch.setattr(EffectExtraction, "predict_step", counted)
    assert effects(run, tiny_llm_folder, made / "store")[0] == 0
    assert sorted(ran) == [0, 2]
    for name, content in before.items():
        if name.endswith(".npz"):
            one, two = np.load(made / "store" / name), np.load(io.BytesIO(content))
            assert all(np.array_equal(one[key], two[key]) for key in two)
    code, said = effects(run, tiny_llm_folder, made / "store", "--model.init_args.unit", "passage")
    assert code == 2
    assert "unit" in said


def _rows(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(file.read_text())["trials"]
    return rows


def _check_export(weights: HeadWeights, folder: Path) -> None:
    """An export has a card that names it, and weighs heads as the checkpoint does; a damaged one is refused."""
    save_pretrained(weights, folder)
    assert 'LearnedHeads(".")' in (folder / "README.md").read_text()
    restored = load_trained(HeadWeights, folder)
    assert type(restored) is type(weights)
    assert restored.training_ids == weights.training_ids
    hidden = torch.randn(3, weights.in_features)
    assert restored(hidden).equal(weights(hidden))
    file = folder / "probe.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="export the probe again"):
        load_trained(HeadWeights, folder)


def test_weights_are_fitted_chosen_and_evaluated(made: Path, run: Run, tiny_llm_folder: Path) -> None:
    store, llm = made / "store", ("--llm.init_args.name", tiny_llm_folder, "--trainer.accelerator", "cpu")
    for name, start in (("static", None), ("dynamic", made / "static" / "best.ckpt")):
        code, said = fit(run, store, made / name, static=start)
        assert code == 0, said
    static, dynamic = (load_trained(HeadWeights, made / name / "best.ckpt") for name in ("static", "dynamic"))
    assert (type(static).__name__, type(dynamic).__name__) == ("HeadWeights", "DynamicHeadWeights")
    with pytest.raises(Exception, match="holds no probe"):
        load(made / "static" / "best.ckpt")
    for weights in (static, dynamic):
        _check_export(weights, made / f"{type(weights).__name__}-export")
        card = ModelCard.load(made / ("static" if weights is static else "dynamic") / "README.md")
        assert card.data.tags[-1] == "attribution"
        assert weights.training_record["llm"]["weights"] in card.text
        assert "`lightning fit -c configs/attributor.yaml" in card.text
    code, said = run("validate", "-c", "configs/attributor.yaml", "--store", store, *_validation(made))
    assert code == 0, said

    methods = [
        {"class_path": "probe.attribution.CopyingHeads", "init_args": {"fallback": "mean"}},
        _learned(made, "static"),
        _learned(made, "dynamic"),
    ]
    choice = (
        *("test", "-c", "configs/attribution/choice.yaml", "--store", store, *llm),
        *("--model.init_args.ablations", "[0, 4]", "--model.init_args.strengths", "[0.5, 20]"),
        *("--model.init_args.methods", json.dumps(methods), "--artifacts.init_args.folder", made / "choice"),
        *("--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", made / "runs"),
    )
    code, said = run(*choice)
    assert code == 0, said
    found = json.loads((made / "choice" / "results.json").read_text())
    assert (found["experiment"], found["answers"], found["left_out"]) == ("attribution_choice", 5, 0)
    # Alone, and with 4 runs two strengths, each with a fitted scale and the median one.
    assert len(found["candidates"]) == 3 * (1 + 2 * 2)
    best = max((row for row in found["candidates"] if row["ablations"] == 4), key=lambda row: row["lds"]["value"])
    assert found["best"]["4"] == best
    code, said = run(*choice, "--data.init_args.split.seed", 1)
    assert code == 2
    assert "validation answers here" in said

    priors = [
        {
            "class_path": "probe.attribution.Prior",
            "init_args": {
                "method": one,
                "ablations": 4,
                "strength": None,
                "choice_file": str(made / "choice" / "results.json"),
            },
        }
        for one in methods
    ]
    attribution = (
        *("test", "-c", "configs/attribution.yaml", "-c", "tests/configs/tiny_attribution.yaml", *llm),
        *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false"),
        *("--model.init_args.methods", json.dumps([*methods, *priors]), "--trainer.default_root_dir", made / "runs"),
        *("--model.init_args.trials", made / "trials", "--artifacts.init_args.folder", made / "out"),
    )
    code, said = run(*attribution)
    assert code == 0, said
    found_by = json.loads((made / "out" / "results.json").read_text())["methods"]
    for one in ("copying heads", "static", "dynamic"):
        rows = [row for row in found["candidates"] if (row["method"], row["ablations"]) == (one, 4)]
        wanted = max(rows, key=lambda row: row["lds"]["value"])
        used = found_by[f"{one} + 4 runs"]
        assert (used["strength"], used["scale"]) == (wanted["strength"], wanted["scale"])
    same = ("--data.init_args.task.init_args.source.init_args.seed", 101)
    code, said = run(*attribution, *same, "--model.init_args.trials", made / "other")
    assert code == 2
    assert "3 of the questions are training questions of 'static'" in said


def _validation(made: Path) -> tuple[object, ...]:
    return (
        *("--checkpoint.init_args.dirpath", made / "static"),
        *("--ckpt_path", made / "static" / "best.ckpt", "--trainer.accelerator", "cpu", "--trainer.logger", "false"),
        *("--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", made / "runs"),
    )


def _learned(made: Path, name: str) -> dict[str, Any]:
    settings = {"checkpoint": str(made / name / "best.ckpt"), "name": name}
    return {"class_path": "probe.attribution.LearnedHeads", "init_args": settings}


def test_a_stopped_fit_goes_on_as_if_it_had_not(made: Path, run: Run) -> None:
    store = made / "store"
    assert fit(run, store, made / "whole", static="null")[0] == 0
    stop = ("--trainer.callbacks+", signal_at("on_train_batch_start", 1, 2))
    code, said = fit(run, store, made / "part", *stop, static="null")
    assert code == 143, said
    code, said = fit(run, store, made / "part", "--ckpt_path", made / "part" / "stopped.ckpt", static="null")
    assert code == 0, said
    one, two = (read_checkpoint(made / name / "last.ckpt") for name in ("whole", "part"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name


def test_bad_input_is_one_line(made: Path, run: Run, tmp_path: Path) -> None:
    store, settings = made / "store", json.loads((made / "store" / "settings.json").read_text())
    del settings["sha256"]
    other = tmp_path / "other"
    other.mkdir()
    llm = {**settings["llm"], "weights": "sha256:other"}
    (other / "settings.json").write_bytes(hashed_json({**settings, "llm": llm}))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "settings.json").write_bytes(hashed_json({**settings, "answers": 0}))
    for wrong, args in (
        ("no ablation effects at", ("--store", tmp_path / "none")),
        ("another LLM", ("--data.init_args.more_stores", json.dumps([str(other)]))),
        ("no answer has 3 ablated runs", ("--store", empty)),
        ("the val part of", ("--data.init_args.split.fractions", "[0.999, 0.001, 0]")),
        ("level", ("--model.init_args.level", "word")),
    ):
        code, said = fit(run, store, tmp_path / "checkpoints", *args)
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert code == 2, wrong
        assert len(errors) == 1
        assert wrong in errors[0]
    code, said = fit(run, store, tmp_path / "checkpoints", static=tmp_path / "none.ckpt")
    assert (code, "no checkpoint at" in said) == (2, True)
