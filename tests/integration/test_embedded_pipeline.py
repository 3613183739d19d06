"""The whole job on the embedded LLM, small: extract, fit, test, through the commands of the README."""

import json
from pathlib import Path

import pytest

import probe
from extract import ScoreStore
from tests.conftest import Run
from tests.extract.store.test_score_store import assert_same


@pytest.mark.slow
def test_extract_fit_test_on_the_embedded_llm(run: Run, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    task = "--data.init_args.task.init_args"
    short = (f"{task}.lengths", "{low: 20, high: 60}", f"{task}.margin", 4)
    runs = (f"{task}.runs", 20, *short)
    where = ("--trainer.default_root_dir", out, "--store", store)
    assert run("predict", "-c", "configs/extract/niah.yaml", "-c", "configs/demo/niah.yaml", *runs, *where)[0] == 0
    opened = ScoreStore(store)
    samples = opened.samples().to_pylist()
    assert sum(sample["accuracy"] for sample in samples) >= 0.7 * len(samples)
    active = sum(int(scores.sum()) for scores in opened.vectors("copy_paste")) / opened.manifest["steps"]
    assert 1 < active < 10  # a few of the 270 heads copy at a step (3.9 measured with another haystack)

    # The same samples one by one, through the writer: equal rows, and not all of them zeros.
    alone = (f"{task}.runs", 2, *short, "--data.init_args.batch_size", 1)
    elsewhere = ("--trainer.default_root_dir", out, "--store", tmp_path / "alone")
    assert run("predict", "-c", "configs/extract/niah.yaml", "-c", "configs/demo/niah.yaml", *alone, *elsewhere)[0] == 0
    assert_same(tmp_path / "alone", store, subset=True)
    assert sum(int(scores.sum()) for scores in ScoreStore(tmp_path / "alone").vectors("copy_paste")) > 100

    callbacks = json.dumps(
        [
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": str(out), "filename": "best", "monitor": "val/loss"},
            },
            {"class_path": "probe.Artifacts", "init_args": {"folder": str(out)}},
        ]
    )
    small = ("--trainer.max_epochs", 15, "--trainer.callbacks", callbacks, "--trainer.logger", "false")
    probe_run = ("-c", "configs/probe.yaml", "-c", "configs/demo/probe.yaml", *where, *small)
    assert run("fit", *probe_run)[0] == 0
    assert run("test", *probe_run, "--ckpt_path", out / "best.ckpt")[0] == 0
    results = json.loads((out / "results.json").read_text())
    assert results["samples"] == 2
    assert results["probe"]["f1"] > results["static"]["f1"]
    assert probe.load(out / "best.ckpt", llm=opened.identity).llm.name == "embedded:smollm2"
