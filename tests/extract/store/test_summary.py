"""Summary of a store: the same as from its samples, whatever processes and interruptions made it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from extract.errors import UserError
from extract.llm import LLM
from extract.store import ScoreStore, read_manifest, read_shard, summarise, summary_rows, write_shard
from probe.metrics import Bootstrap, mean_interval
from tests.conftest import ROOT
from tests.helpers.bad_input import resign
from tests.helpers.stores import make_store

Extract = Callable[..., tuple[int, str]]


def slow_summary(path: Path, names: list[str], ends: set[int]) -> dict[str, Any]:
    """From one sample's rows after the other, in Python's own numbers; intervals are those of the experiments."""
    store, values = ScoreStore(path), {name: [] for name in [*names, "cut"]}  # type: ignore[var-annotated]
    heads: dict[str, list[int]] = {"copy_paste": [], "reasoning": []}
    for sample in store.samples().to_pylist():
        steps = store.steps(sample["sample"])
        for name in names:
            values[name].append(sample[name])
        values["cut"].append(float(steps.tokens.tolist()[-1] not in ends))
        for copied, score in zip(steps.copy_paste.tolist(), steps.reasoning.tolist(), strict=True):
            heads["copy_paste"].append(sum(head for layer in copied for head in layer))
            flat = [head for layer in score for head in layer]
            if not all(math.isnan(head) for head in flat):
                heads["reasoning"].append(sum(head >= 0.5 for head in flat))
    means: dict[str, Any] = {name: {"value": None, "steps": 0} for name in heads}
    for name, found in heads.items():
        if found:
            means[name] = {"value": sum(found) / len(found), "steps": len(found)}
    estimates = {}
    for name, found in values.items():
        interval = mean_interval(np.array(found, float), set(found) <= {0, 1}, Bootstrap(1000))
        low, high = (None if math.isnan(bound) else bound for bound in interval)
        estimates[name] = {"value": sum(found) / len(found), "low": low, "high": high, "n": len(found)}
    cut = estimates.pop("cut")
    return {"metrics": estimates, "dynamic_heads": means, "at_budget": cut}


def assert_equal(found: Any, expected: Any) -> None:
    """Plain values are the same, numbers to rounding."""
    if isinstance(expected, dict):
        assert set(expected) <= set(found) <= {*expected, "threshold"}
        for name, value in expected.items():
            assert_equal(found[name], value)
    else:
        assert found == (None if expected is None else pytest.approx(expected, rel=1e-9))


def test_the_summary_is_that_of_the_samples_in_one_run_and_in_two(
    extract_tiny: Extract, tmp_path: Path, llm: LLM, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert extract_tiny(tmp_path / "whole", "--model.init_args.local", 2)[0] == 0
    summary = ScoreStore(tmp_path / "whole").manifest["summary"]
    assert_equal(summary, slow_summary(tmp_path / "whole", ["accuracy", "rouge_l"], set(llm.end_tokens)))
    assert summary["at_budget"]["n"] == 5 and summary["dynamic_heads"]["reasoning"]["steps"] > 0
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    for name, text in summary_rows(summary):
        assert f"  {name}: {text}" in caplog.messages
        assert f"| {name} | {text} |" in card

    assert extract_tiny(tmp_path / "two", "--model.init_args.local", 2, "--trainer.limit_predict_batches", 1)[0] == 2
    assert extract_tiny(tmp_path / "two", "--model.init_args.local", 2)[0] == 0
    assert ScoreStore(tmp_path / "two").manifest["summary"] == summary


def test_cut_answers_and_any_metric_are_counted(tmp_path: Path) -> None:
    """Of a store with metrics of every kind; NaN, as in teacher forcing, is no value."""
    path = make_store(tmp_path / "s", samples=40, shards=4)
    manifest = read_manifest(path)
    rng = np.random.default_rng(3)
    for entry in manifest["shards"]:
        samples = read_shard(path / entry["samples"]["file"])
        columns = {name: samples[name] for name in samples.column_names}
        columns |= {"length": pa.array(rng.integers(0, 9, len(samples))), "unscored": pa.array([0] * len(samples))}
        columns |= {
            "em": pa.array(rng.integers(0, 2, len(samples)).astype(float)),
            "f1": pa.array(rng.random(len(samples))),
        }
        columns |= {"answer_forced": pa.array(["x"] * len(samples)), "none": pa.array([math.nan] * len(samples))}
        entry["samples"] = write_shard(path / entry["samples"]["file"], pa.table(columns))
    resign(path, lambda held: held.update(shards=manifest["shards"]))
    found = summarise(path, manifest["shards"], {3, 5})
    assert found["metrics"].pop("none") == {"value": None, "low": None, "high": None, "n": 0}
    assert_equal(found, slow_summary(path, ["em", "f1"], {3, 5}))
    assert 0 < found["at_budget"]["value"] < 1
    assert summarise(path, manifest["shards"], None)["at_budget"]["n"] == 0
    json.dumps(found, allow_nan=False)


def test_stores_without_a_summary_open_and_a_malformed_one_is_refused(tmp_path: Path) -> None:
    old = ROOT / "tests/extract/store/format_2"
    assert "summary" not in ScoreStore(old).manifest
    assert summarise(old, ScoreStore(old).manifest["shards"], {2})["dynamic_heads"]["copy_paste"]["steps"] == 11
    store = resign(make_store(tmp_path / "s"), lambda manifest: manifest.update(summary={"metrics": {"em": 1}}))
    with pytest.raises(UserError, match="summary: 'dynamic_heads' is missing"):
        ScoreStore(store)
