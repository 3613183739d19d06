"""Correlation (configs/correlation.yaml): metrics from rows put together one by one, nulls, intervals, refusals."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import Pass, ResampledSequences
from datamodules.resampling import partner_places
from extract.llm import LLMIdentity
from extract.store import ScoreStore
from probe.experiments.correlation import CCASettings, JointMoments, canonical, correlations_on, summary
from probe.metrics import jackknife
from tests.helpers.stores import make_store

Measure = Any
moments = JointMoments.of
SIZES = LLMIdentity("toy", "sha256:" + "1" * 64, layers=2, heads=2, hidden_size=5, dtype="float32")


@pytest.fixture
def measure(measured: Measure, tmp_path: Path) -> Measure:
    """Results of a run on a synthetic store, or its refusal."""
    make_store(tmp_path / "store", samples=120, shards=3, identity=SIZES, contribution=True)

    def call(*args: object, store: Path | None = None) -> Any:
        few = ("--model.init_args.offsets", 2, "--data.init_args.permutations", 2, "--data.init_args.groups", 4)
        return measured("correlation", store or tmp_path / "store", *few, *args)

    return call


def paired(folder: Path, k: int, chosen: set[int], column: str = "copy_paste") -> tuple[Any, Any]:
    """Hidden states and the scores of k steps later of the chosen samples, row by row."""
    store = ScoreStore(folder)
    x, y = (np.concatenate(store.vectors(name)).astype(np.float64) for name in ("hidden", column))
    sample = store.scalars("sample")
    rows = [n for n in range(len(x) - k) if sample[n] == sample[n + k] and sample[n] in chosen]
    return x[rows], y[[n + k for n in rows]]


def parts() -> tuple[set[int], set[int]]:
    order = np.random.default_rng(0).permutation(120).tolist()
    return set(order[:84]), set(order[84:])


def value(offset: Any, kind: str) -> list[float]:
    return [cell["value"] for cell in offset[kind].values()]


@pytest.mark.parametrize("target", ["copy_paste", "contribution"])
def test_metrics_of_a_store_equal_those_of_its_rows(target: str, measure: Measure, tmp_path: Path) -> None:
    found = measure("--data.init_args.target", target)
    assert found["target"] == target
    train, evaluated = parts()
    for k, offset in enumerate(found["offsets"]):
        fit = canonical(moments(*paired(tmp_path / "store", k, train, target)), CCASettings())
        other = correlations_on(fit, moments(*paired(tmp_path / "store", k, evaluated, target)))
        assert value(offset, "in_sample") == pytest.approx(summary(fit.correlations).tolist(), abs=1e-5)
        assert value(offset, "held_out") == pytest.approx(summary(other).tolist(), abs=1e-5)
        assert offset["components"] == len(fit.correlations) < 50
    assert found["offsets"][0]["held_out"]["component_1"]["value"] > 0.6
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines()))
    assert len(rows) == 3 * 7 * 3
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".csv", ".png", ".pdf"}


def test_both_sides_are_scaled_on_demand(measure: Measure, tmp_path: Path) -> None:
    scores, both = measure(), measure("--model.init_args.scaling", "both")
    assert (scores["scaling"], both["scaling"]) == ("scores", "both")
    pairs = paired(tmp_path / "store", 1, parts()[0])
    for found, scale_x in ((scores, False), (both, True)):
        fit = canonical(moments(*pairs), CCASettings(scale_x=scale_x))
        assert found["offsets"][1]["correlations"] == pytest.approx(fit.correlations.tolist(), abs=1e-5)


def test_the_step_number_alone_is_evaluated_like_hidden_states(measure: Measure, tmp_path: Path) -> None:
    """One-hot step numbers as rows in place of the hidden states; numbers beyond the training samples' are the last."""
    store = ScoreStore(tmp_path / "store")
    step, sample = store.scalars("step"), store.scalars("sample")
    train, evaluated = parts()
    last = max(step[n] for n in range(len(step)) if sample[n] in train)
    found = measure()["offsets"]
    for k in (0, 2):
        rows = [n for n in range(len(step) - k) if sample[n] == sample[n + k]]
        sides = []
        for chosen in (train, evaluated):
            one_hot = np.eye(last + 1)[[min(step[n], last) for n in rows if sample[n] in chosen]]
            sides.append(moments(one_hot, paired(tmp_path / "store", k, chosen)[1]))
        other = summary(correlations_on(canonical(sides[0], CCASettings()), sides[1]))
        assert value(found[k], "step_number") == pytest.approx(other.tolist(), abs=1e-5)
        gap = [a - b for a, b in zip(value(found[k], "held_out"), other.tolist(), strict=True)]
        assert value(found[k], "held_out_minus_step_number") == pytest.approx(gap, abs=1e-5)
    assert found[0]["step_number"]["component_1"]["value"] < 0.3  # these scores have no rhythm
    assert found[0]["within_step"]["component_1"]["value"] > 0.6
    cell = found[0]["held_out_minus_step_number"]["component_1"]
    assert 0 < cell["low"] < cell["value"] < cell["high"]


def test_an_offset_beyond_the_samples_has_no_metrics(measure: Measure, tmp_path: Path) -> None:
    """Training samples of this store have up to 8 steps, evaluation ones up to 7."""
    store = make_store(tmp_path / "short", samples=12, shards=2, identity=SIZES, seed=6)
    options = ("--model.init_args.offsets", 8, "--data.init_args.groups", 0, "--data.init_args.target", "reasoning")
    found = measure(*options, store=store)["offsets"]
    assert found[7]["pairs"]["train"] > 0
    assert found[7]["pairs"]["evaluation"] == 0
    assert found[7]["held_out"]["component_1"]["value"] is None
    assert found[8]["pairs"] == {"train": 0, "evaluation": 0}
    assert "in_sample" not in found[8]


def test_batches_leave_no_trace(measure: Measure) -> None:
    one, many = measure(), measure("--data.init_args.batch_size", 20)
    for a, b in zip(one["offsets"], many["offsets"], strict=True):
        for kind in ("in_sample", "held_out", "null_shifted", "null_step"):
            for name, cell in a[kind].items():
                assert b[kind][name] == pytest.approx(cell, abs=1e-4)


def test_intervals_are_those_of_refits_without_each_group(measure: Measure, tmp_path: Path) -> None:
    found = measure()["offsets"][1]
    data = ResampledSequences(store=str(tmp_path / "store"), groups=4)
    data.setup("test")
    train, evaluated = parts()
    whole = moments(*paired(tmp_path / "store", 1, train))
    left = []
    for group in range(4):
        gone = {part: set(_samples(data, Pass(part, group=group))) for part in ("train", "evaluation")}  # type: ignore[arg-type]
        rest = moments(*paired(tmp_path / "store", 1, train - gone["train"]))
        rest.x_range, rest.y_range = whole.x_range, whole.y_range
        fit = canonical(rest, CCASettings())
        there = moments(*paired(tmp_path / "store", 1, evaluated - gone["evaluation"]))
        left.append([summary(fit.correlations), summary(correlations_on(fit, there))])
    for number, kind in enumerate(("in_sample", "held_out")):
        low, high = jackknife(np.array(value(found, kind)), np.array([pair[number] for pair in left]))
        assert [cell["low"] for cell in found[kind].values()] == pytest.approx(low.tolist(), abs=1e-4)
        assert [cell["high"] for cell in found[kind].values()] == pytest.approx(high.tolist(), abs=1e-4)


def _samples(data: ResampledSequences, which: Pass) -> list[int]:
    batches = data.whole_samples(which)
    return [int(n) for number in range(len(batches)) for n in batches[number].sample.unique()]


def test_groups_divide_the_samples(tmp_path: Path) -> None:
    make_store(tmp_path / "store", samples=50)
    data = ResampledSequences(store=str(tmp_path / "store"), groups=7)
    data.setup("test")
    dealt = [_samples(data, Pass("train", group=group)) for group in range(7)]
    assert sorted(n for group in dealt for n in group) == sorted(_samples(data, Pass("train")))
    assert {len(group) for group in dealt} == {5}


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=40)
    left = np.array([[np.delete(values, n).mean()] for n in range(40)])
    low, high = jackknife(np.array([values.mean()]), left)
    assert (high[0] - low[0]) / 2 == pytest.approx(2.0226909 * values.std(ddof=1) / np.sqrt(40))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9), st.booleans(), st.integers(0, 99))
def test_a_null_follows_another_sample_step_by_step(lengths: list[int], shifted: bool, seed: int) -> None:
    sample = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    places = partner_places(sample, shifted, np.random.default_rng(seed))
    partners = []
    for n, length in enumerate(lengths):
        own = places[sample == n]
        (partner,) = set(sample[own].tolist())
        partners.append(partner)
        first = step[own[0]] if shifted else 0
        assert step[own].tolist() == [(first + i) % lengths[partner] for i in range(length)]
    assert sorted(partners) == list(range(len(lengths)))
    assert all(n != partner for n, partner in enumerate(partners))


def test_scores_without_any_relation_correlate_by_chance_alone(measure: Measure, tmp_path: Path) -> None:
    """Noise: in sample as high as its null, held out an interval that covers 0."""
    store = make_store(tmp_path / "noise", samples=200, identity=SIZES, relation=0.0)
    args = ("--model.init_args.offsets", 0, "--data.init_args.groups", 10, "--data.init_args.target", "reasoning")
    found = measure(*args, store=store)["offsets"][0]
    cell = found["held_out"]["component_1"]
    assert cell["low"] < 0 < cell["high"]
    assert found["in_sample"]["component_1"]["value"] < found["null_shifted"]["component_1"]["high"] + 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("quick_spawn")
def test_two_processes_measure_what_one_does(measure: Measure) -> None:
    args = ("--data.init_args.batch_size", 40, "--model.init_args.offsets", 1)
    one = measure(*args)
    two = measure(*args, "--trainer.devices", 2, "--trainer.strategy", "ddp_spawn")
    for a, b in zip(one["offsets"], two["offsets"], strict=True):
        for kind in ("in_sample", "held_out", "null_shifted", "null_step"):
            assert value(b, kind) == pytest.approx(value(a, kind), abs=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data", "datamodules.Sequences"), "datamodules.ResampledSequences"),
        (("--model.init_args.components", 0), "model.init_args.components: at least 1, not 0"),
        (("--model.init_args.hidden_variance", 1.5), "model.init_args.hidden_variance: above 0 and at most 1"),
        (("--data.init_args.groups", 1), "groups not 1"),
        (("--data.init_args.groups", 90), "90 groups of 36 samples"),
    ],
)
def test_bad_settings_get_one_line(measure: Measure, args: tuple[object, ...], message: str) -> None:
    said = measure(*args)
    assert said.count("\n") == 1
    assert message in said
