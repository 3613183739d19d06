"""The benchmark of whole commands, on a toy store and in this process."""

import re
from pathlib import Path

import pytest

from probe.cli.main import main
from tests.benchmarks import bench_commands
from tests.helpers.stores import make_store


def test_the_first_table_is_timed_and_its_metrics_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, short = list[str](), ("--trainer.max_epochs", 1, "--trainer.log_every_n_steps", 1)

    def stage(*words: object) -> None:
        ran.append(str(words[0]))
        if words[0] == "predict":
            make_store(tmp_path / "demo", samples=40)
        else:
            assert main([str(word) for word in words]) == 0

    monkeypatch.setattr(bench_commands, "CLASSIFIER", (*bench_commands.CLASSIFIER, *short))
    monkeypatch.setattr(bench_commands, "stage", stage)
    (found,) = bench_commands.first_table(tmp_path)
    assert ran == ["predict", "fit", "test"]
    assert found["bound"] == "<= 5.0"
    minutes = ", ".join(rf"{name} \d+\.\d" for name in ("extraction", "fit", "test"))
    assert re.fullmatch(rf"{minutes}; f1 0\.\d\d\d, auprc 0\.\d\d\d", found["detail"])
