"""`lightning test -c configs/dynamism.yaml`: its metrics from plain sets, its files, its refusals."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules import Sequences
from extract.store import ScoreStore
from probe.experiments.dynamism.table import dynamism_table
from tests.helpers.stores import make_store
from tests.probe.experiments.test_dynamism_metrics import slow_metrics

Measure = Any


@pytest.fixture
def measure(measured: Measure, tmp_path: Path) -> Measure:
    """Results of a run on a synthetic store, or its refusal."""
    make_store(tmp_path / "store", samples=30, shards=3)
    few = ("--model.init_args.static_top", 2, "--model.init_args.static_sizes", "[1, 4]")
    few = (*few, "--model.init_args.resamples", 50)
    return lambda *args: measured("dynamism", tmp_path / "store", *few, *args)


def plain(folder: Path, column: str, active: Any, static_top: int = 2) -> tuple[dict[str, float], list[int]]:
    """Metrics of the held-out samples from the store's own tables, and the training samples' top heads."""
    data = Sequences(store=str(folder))
    data.setup("test")
    store = ScoreStore(folder)
    scores, sample = np.concatenate(store.vectors(column)), store.scalars("sample")
    order = np.random.default_rng(0).permutation(30)
    train, held_out = set(order[:21].tolist()), sorted(order[21:].tolist())
    means = scores[[number in train for number in sample]].mean(axis=0)
    static = sorted(np.argsort(-means, kind="stable")[:static_top].tolist())
    sets = [[set(np.flatnonzero(active(row)).tolist()) for row in scores[sample == number]] for number in held_out]
    return slow_metrics(sets, set(static)), static


def same(found: Any, wanted: dict[str, float]) -> None:
    assert {name: cell["value"] for name, cell in found["metrics"]["dynamic"].items()} == pytest.approx(wanted)


def test_metrics_of_a_store_equal_plain_sets(measure: Measure, tmp_path: Path) -> None:
    found = measure()
    wanted, static = plain(tmp_path / "store", "copy_paste", lambda row: row > 0)
    same(found, wanted)
    assert found["static_heads"] == static
    assert found["samples"] == 9
    for batch_size in (1, 7):
        again = measure("--data.init_args.batch_size", batch_size)
        assert again["metrics"] == found["metrics"]
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines()))
    assert len(rows) == 2 * (10 + 2 * 3)
    assert float(rows[0]["value"]) == found["metrics"]["dynamic"][rows[0]["metric"]]["value"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        *("results.json", "results.csv"),
        *("heads_over_steps.png", "heads_over_steps.pdf", "activation_frequency.png", "activation_frequency.pdf"),
    }


def test_further_sizes_of_the_static_set_are_as_if_each_were_the_static_set(measure: Measure, tmp_path: Path) -> None:
    found = measure()
    assert found["heads"] == 6
    for size in (1, 4):
        wanted, static = plain(tmp_path / "store", "copy_paste", lambda row: row > 0, size)
        for name in ("jaccard_static", "jaccard_static_non_empty"):
            cell = found["static_size_metrics"]["dynamic"][f"{name}_top_{size}"]
            assert cell["value"] == pytest.approx(wanted[name])
            assert cell["low"] < cell["value"] < cell["high"]
        alone = measure("--model.init_args.static_top", size)
        assert alone["static_heads"] == static
        for kind in ("dynamic", "shuffled"):
            beside = found["static_size_metrics"][kind][f"jaccard_static_top_{size}"]
            assert beside == pytest.approx(alone["metrics"][kind]["jaccard_static"])
    assert measure("--model.init_args.static_sizes", "[]")["static_size_metrics"]["dynamic"] == {}


def test_static_sets_beyond_the_heads_ever_dynamic_are_reported(measured: Measure, tmp_path: Path) -> None:
    make_store(tmp_path / "rare", samples=30, shards=3, relation=0.2)  # five of six heads score now and then
    few = (
        "--model.init_args.resamples",
        5,
        "--model.init_args.static_sizes",
        "[1]",
        "--data.init_args.evaluation",
        "all",
    )
    found = measured("dynamism", tmp_path / "rare", *few, "--model.init_args.static_top", 6)
    scores = np.concatenate(ScoreStore(tmp_path / "rare").vectors("copy_paste"))
    ever = len({int(head) for row in scores for head in np.flatnonzero(row)})
    assert 1 <= ever < 6
    note = f"static sets of 6 hold heads that are never dynamic: only {ever} are at any evaluation step"
    assert found["note"] == note
    assert dynamism_table(found).caption.endswith(note)  # type: ignore[union-attr]
    assert measured("dynamism", tmp_path / "rare", *few, "--model.init_args.static_top", ever)["note"] == ""


def test_reasoning_scores_have_two_definitions(measure: Measure, tmp_path: Path) -> None:
    reasoning = ("--data.init_args.target", "reasoning")
    found = measure(*reasoning, "--model.init_args.threshold", 0.7)
    same(found, plain(tmp_path / "store", "reasoning", lambda row: row >= 0.7)[0])
    found = measure(*reasoning, "--model.init_args.top", 2)
    same(found, plain(tmp_path / "store", "reasoning", lambda row: row >= np.sort(row)[-2])[0])
    assert found["metrics"]["dynamic"]["heads_per_step"]["value"] == 2


def test_a_published_ranking_can_be_the_static_set(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "heads.yaml").write_text("attn_head_set: 1-2,0-1,0-0")
    static = ("--model.init_args.static", tmp_path / "heads.yaml")
    found = measure(*static, "--model.init_args.static_sizes", "[1, 3]")
    assert found["static_heads"] == [1, 5]
    assert "each from 1 to 3, the number of ranked heads" in measure(*static)


def test_evaluated_samples_can_be_all_or_another_stores(measure: Measure, tmp_path: Path) -> None:
    assert measure("--data.init_args.evaluation", "all")["samples"] == 30
    make_store(tmp_path / "other", samples=12, shards=2, seed=5, name="other")
    assert measure("--data.init_args.test_store", tmp_path / "other")["samples"] == 12


@pytest.mark.slow
@pytest.mark.usefixtures("quick_spawn")
def test_two_processes_measure_what_one_does(measure: Measure) -> None:
    one = measure("--data.init_args.batch_size", 7)
    two = measure(
        *("--data.init_args.batch_size", 7, "--trainer.devices", 2, "--trainer.strategy", "ddp_spawn"),
    )
    assert two["metrics"] == one["metrics"]
    assert two["static_heads"] == one["static_heads"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data.init_args.split.by", "row"), "it must be `sample`"),
        (("--model.init_args.static_top", 0), "static_top: at least 1, not 0"),
        (("--model.init_args.static_top", 7), "at most 6"),
        (("--model.init_args.static_sizes", "[2, 7]"), "static_sizes [2, 7]: each from 1 to 6"),
        (("--model.init_args.static_sizes", "[0]"), "static_sizes: at least 1, not 0"),
        (("--model.init_args.sample", 99), "model.sample 99 is not among the evaluation samples"),
        (("--model.init_args.static", "none.yaml"), "there is no ranking file none.yaml"),
        (("--data", "datamodules.ScoreRows"), "datamodules.Sequences"),
    ],
)
def test_bad_settings_get_one_line(measure: Measure, args: tuple[object, ...], message: str) -> None:
    said = measure(*args)
    assert said.count("\n") == 1
    assert message in said


def test_contributions_are_a_score(measure: Measure, tmp_path: Path) -> None:
    """In logits, from any number on; a store without them is refused in one line."""
    contribution = ("--data.init_args.target", "contribution", "--model.init_args.threshold", 0.8)
    said = measure(*contribution)
    assert said.count("\n") == 1
    assert "holds no 'contribution' scores; extract into another folder with --model.init_args.contribution" in said
    shutil.rmtree(tmp_path / "store")
    make_store(tmp_path / "store", samples=30, shards=3, contribution=True)
    found = measure(*contribution)
    assert found["dynamic_heads"] == "contribution ≥ 0.8"
    same(found, plain(tmp_path / "store", "contribution", lambda row: row >= 0.8)[0])
