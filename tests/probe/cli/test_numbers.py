"""Whole numbers of batches stay whole numbers; fractions stay fractions."""

import typing
from typing import Any

import pytest
from lightning import Trainer

from probe.cli.lightning_cli import StageParser

COUNTS = {
    "limit_train_batches",
    "limit_val_batches",
    "limit_test_batches",
    "limit_predict_batches",
    "overfit_batches",
    "val_check_interval",
    "gradient_clip_val",
}


@pytest.fixture
def fractions_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainer's hints as `typing` gives them where another library made `Union[float, int]` earlier."""
    hints = Trainer.__init__.__annotations__
    for name in COUNTS:
        others = [part for part in typing.get_args(hints[name]) if part not in (int, float)]
        union = float | int
        for part in others:
            union |= part
        monkeypatch.setitem(hints, name, union)


def parsed(*args: str) -> Any:
    parser = StageParser()
    parser.add_lightning_class_args(Trainer, "trainer")
    return parser.parse_args(list(args)).trainer


@pytest.mark.parametrize("name", sorted(COUNTS))
@pytest.mark.parametrize(("text", "value"), [("1", 1), ("3", 3), ("1.0", 1.0), ("0.5", 0.5)])
def test_counts_and_fractions(fractions_first: None, name: str, text: str, value: float) -> None:
    found = parsed(f"--trainer.{name}", text)[name]
    assert (found, type(found)) == (value, type(value))


def test_counts_of_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaging from epoch 1 on is not averaging from 100 % of the epochs on."""
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    monkeypatch.setitem(StochasticWeightAveraging.__init__.__annotations__, "swa_epoch_start", float | int)
    averaging = '{"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging", "init_args": {"swa_lrs": 0.1}}'
    found = parsed("--trainer.callbacks", averaging, "--trainer.callbacks.swa_epoch_start", "1").callbacks
    start = (found[0] if isinstance(found, list) else found).init_args.swa_epoch_start
    assert (start, type(start)) == (1, int)
