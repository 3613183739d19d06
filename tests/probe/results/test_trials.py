"""Trials on disk: a run continues with its own settings only."""

from pathlib import Path

import pytest

from extract.errors import UserError
from probe.results import Trials

CONFIG = {"llm": {"name": "x"}, "task": {"seed": 1, "lengths": {"low": 5, "high": 9}}}


def test_a_run_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    trials = Trials(tmp_path / "trials")
    assert trials.open(CONFIG) == []
    trials.write(3, [{"sample": 1}])
    trials.write(0, [{"sample": 0}])
    (tmp_path / "trials" / "000009.json.tmp").write_text("half")
    assert Trials(tmp_path / "trials").open(CONFIG) == [0, 3]
    assert [one["sample"] for one in trials.read()] == [0, 1]
    assert not list((tmp_path / "trials").glob("*.tmp"))
    with pytest.raises(UserError, match=r"task\.lengths\.high: 9 there, 8 here"):
        trials.open({**CONFIG, "task": {"seed": 1, "lengths": {"low": 5, "high": 8}}})
    (tmp_path / "trials" / "000003.json").write_text("[{")
    with pytest.raises(UserError, match="damaged"):
        trials.read()


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(UserError, match="something else"):
        Trials(tmp_path).open(CONFIG)
    with pytest.raises(UserError, match="cannot write"):
        Trials(tmp_path / "mine.json" / "below").open(CONFIG)
