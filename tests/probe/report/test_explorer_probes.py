"""Probes in the explorer: only those that predict the scores of the store's own steps."""

from pathlib import Path
from typing import Any

import pytest

import probe
from extract.store import ScoreStore
from probe.models import Probe
from probe.report.explorer import fitting_probes
from tests.helpers.stores import IDENTITY, make_store


def trained(kind: Any, sink: int | None = 4, offset: int = 0, weights: str = IDENTITY.weights) -> Probe:
    """A probe with the record of its training data."""
    found: Probe = kind(8, 6, hidden=[4])
    found.training_record = {
        "llm": {**IDENTITY.as_dict(), "weights": weights},
        "split": {"offset": offset},
        **({} if sink is None else {"excluded": {"sink": sink, "local": 64}}),
    }
    return found


def test_probes_of_other_scores_are_left_out_by_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ScoreStore(make_store(tmp_path / "s"))
    classifier, regressor = probe.ProbeClassifier, probe.ProbeRegressor
    fitting = [trained(classifier), trained(regressor), trained(regressor, sink=None), trained(classifier, sink=2)]
    later, others, stranger = (
        trained(classifier, offset=3),
        trained(regressor, sink=2),
        trained(classifier, weights="x"),
    )
    assert fitting_probes(store, [*fitting, later, others, stranger]) == fitting
    first, second = capsys.readouterr().err.splitlines()
    assert "a ProbeClassifier is left out: this probe predicts the scores of 3 steps later" in first
    assert "a ProbeRegressor is left out: Eq. 2 of the explorer of" in second
