"""Score rows: gathers, splits, offsets, and batches shared out over processes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import Trainer
from lightning.pytorch.plugins.precision import Precision

from datamodules import OffsetRows, ResampledSequences, ScoreRows, Sequences, Split
from datamodules.columns import ShardedColumn
from datamodules.samplers import EpochShare, Share
from datamodules.splits import SPLITS
from extract.errors import UserError
from extract.store import column_matrix
from probe.heads import training_means
from tests.helpers.stores import make_store


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_a_gather_over_shards_equals_one_array(sizes: list[int], data: st.DataObject) -> None:
    sizes = [*sizes, 1]
    arrays = [np.random.default_rng(i).normal(size=(n, 3)) for i, n in enumerate(sizes)]
    whole = np.concatenate(arrays)
    rows = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)), dtype=np.int64)
    np.testing.assert_array_equal(ShardedColumn(arrays).take(np.sort(rows)), whole[np.sort(rows)])


@given(st.integers(0, 60), st.integers(1, 5), st.booleans())
def test_processes_share_every_batch_once(count: int, world: int, even: bool) -> None:
    shares = [Share(count, rank, world, even) for rank in range(world)]
    drawn = [list(share) for share in shares]
    assert [len(share) for share in shares] == [len(numbers) for numbers in drawn]
    real = sorted(n for numbers in drawn for n in numbers if n < count)
    if even:
        assert len({len(numbers) for numbers in drawn}) == 1
        assert real == sorted(set(real))
        assert len(real) == count - count % world
    else:
        assert real == list(range(count))
        assert all(numbers for numbers in drawn)


samples_of_rows = st.lists(st.integers(0, 30), min_size=1, max_size=200).map(lambda x: np.sort(np.array(x)))


@given(samples_of_rows, st.sampled_from(["sample", "row"]), st.integers(0, 100))
def test_splits_share_nothing_and_lose_nothing(samples: np.ndarray, by: str, seed: int) -> None:
    split = Split(by=by, seed=seed)  # type: ignore[arg-type]
    try:
        rows = split.rows(samples)
    except UserError:
        assert len(np.unique(samples) if by == "sample" else samples) < 10
        return
    joined = np.concatenate([rows[name] for name in SPLITS])
    assert sorted(joined) == list(range(len(samples)))
    if by == "sample":
        parts = [set(samples[rows[name]]) for name in SPLITS]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert split.record(samples) == Split(by=by, seed=seed).record(samples)  # type: ignore[arg-type]
    again = Split(by=by, seed=seed + 1).record(samples)  # type: ignore[arg-type]
    assert again["sha256"] != split.record(samples)["sha256"] or len(joined) < 20


def test_shares_are_seventy_twenty_ten() -> None:
    rows = Split().rows(np.arange(1000))
    assert [len(rows[name]) for name in SPLITS] == [700, 200, 100]


def opened(store: Path, **settings: object) -> ScoreRows:
    rows = ScoreRows(str(store), **settings)  # type: ignore[arg-type]
    loop = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).fit_loop
    rows.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0, world_size=1, precision_plugin=Precision(), fit_loop=loop
    )
    rows.setup("fit")
    return rows


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("target", ["copy_paste", "reasoning"])
def test_every_batch_pairs_a_state_with_the_scores_offset_steps_later(tmp_path: Path, offset: int, target: str) -> None:
    rows = opened(make_store(tmp_path / "s"), offset=offset, target=target, batch_size=7)
    table = rows.store.tables("steps")
    hidden = np.concatenate([column_matrix(t["hidden"]) for t in table])
    scores = np.concatenate([column_matrix(t[target]) for t in table])
    sample = rows.store.scalars("sample")
    step = rows.store.scalars("step")
    where = {tuple(h): i for i, h in enumerate(hidden)}
    pairs = 0
    for split in SPLITS:
        for batch in rows._loader(split):  # type: ignore[arg-type]
            for h, s, number in zip(batch.hidden.numpy(), batch.scores.numpy(), batch.sample.tolist(), strict=True):
                now = where[tuple(h)]
                assert sample[now + offset] == number == sample[now]
                assert step[now + offset] == step[now] + offset
                np.testing.assert_array_equal(s, scores[now + offset].astype(np.float32))
                pairs += 1
    lengths = np.bincount(sample)
    assert pairs == np.maximum(lengths - offset, 0).sum()


def test_epochs_shuffle_anew_and_alike_on_every_process(tmp_path: Path) -> None:
    rows = opened(make_store(tmp_path / "s"), batch_size=16)
    train = rows.batches("train")
    first, second = train.epoch_rows(0).tolist(), train.epoch_rows(1).tolist()
    assert first != second
    assert sorted(first) == sorted(second) == train.rows.tolist()
    assert rows.batches("train").epoch_rows(1).tolist() == second
    share = EpochShare(3, 0, 1)
    share.set_epoch(4)
    assert list(share) == [(0, 4), (1, 4), (2, 4)]
    assert len(train.batch(len(train)).hidden) == 0  # the empty batch of a process without work


def test_head_means_are_of_the_training_rows(tmp_path: Path) -> None:
    rows = opened(make_store(tmp_path / "s"), batch_size=1000)
    (batch,) = rows.train_dataloader()
    torch.testing.assert_close(training_means(rows), batch.scores.mean(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": Split(fractions=(0.5, 0.2, 0.1))}, "add up to 1"),
        ({"split": Split(fractions=(0.999, 0.0005, 0.0005))}, "part of 40 samples is empty"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"offset": -1}, "offset -1"),
        ({"offset": 50}, "no row of the train split"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened(make_store(tmp_path / "s"), **settings)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (OffsetRows, {"offset": 1}),
        (Sequences, {"seed": 1}),
        (Sequences, {"offset": 1}),
        (ResampledSequences, {"hidden": 1}),
    ],
)
def test_a_setting_that_a_subclass_fixes_is_not_taken(kind: Any, settings: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="multiple values"):
        kind(store="s", **settings)


def test_inherited_settings_reach_the_base() -> None:
    settings = {"store": "s", "target": "reasoning", "test_store": "t", "num_workers": 2, "verify": False}
    for kind in (ScoreRows, OffsetRows, Sequences, ResampledSequences):
        rows: Any = kind(**settings, split=Split(seed=4))
        taken = (rows.store_path, rows.target, rows.test_path, rows.num_workers, rows.verify, rows.split.seed)
        assert taken == ("s", "reasoning", "t", 2, False, 4)
