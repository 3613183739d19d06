"""Trials on disk: a run continues with its own settings only."""

import json
import shutil
from pathlib import Path

import pytest

from extract.errors import UserError
from extract.utils import software
from extract.utils.files.processes import Process
from probe.results import Trials
from tests.extract.utils.test_locks import hold, other_run  # noqa: F401 (fixture)

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


MODEL = {"name": "x", "weights": "sha256:1", "config": "sha256:2"}
RUN = {
    "llm": MODEL,
    "task": {"haystack": "a.txt", "haystack_sha256": "sha256:3"},
    "store": {"store": "stores/a", "fingerprint": "f"},
    "probe": {"llm": MODEL, "store": "f"},
}


def test_names_and_paths_may_be_spelled_otherwise(tmp_path: Path) -> None:
    Trials(tmp_path).open(RUN)
    Trials(tmp_path).write(0, [{"sample": 0}])
    renamed = {**MODEL, "name": "./x"}
    spelled = {
        "llm": renamed,
        "task": {"haystack": "./a.txt", "haystack_sha256": "sha256:3"},
        "store": {"store": "./stores/a", "fingerprint": "f"},
        "probe": {"llm": renamed, "store": "f"},
    }
    assert Trials(tmp_path).open(spelled) == [0]
    with pytest.raises(UserError, match=r"other settings \(llm\.config: sha256:2 there, sha256:4 here\)"):
        Trials(tmp_path).open({**RUN, "llm": {**MODEL, "config": "sha256:4"}})
    with pytest.raises(UserError, match=r"store\.fingerprint: f there, g here"):
        Trials(tmp_path).open({**RUN, "store": {"store": "stores/a", "fingerprint": "g"}})


def test_trials_that_record_only_weights_are_not_continued(tmp_path: Path) -> None:
    Trials(tmp_path).open({**RUN, "llm": {"name": "x", "weights": "sha256:1"}})
    Trials(tmp_path).write(0, [{"sample": 0}])
    with pytest.raises(UserError, match="an earlier version, which recorded the model's weights but not its config"):
        Trials(tmp_path).open(RUN)
    assert len(Trials(tmp_path).read()) == 1


def test_a_folder_without_trials_is_begun_again(tmp_path: Path) -> None:
    Trials(tmp_path).open(RUN)
    other = {**RUN, "task": {"haystack_sha256": "sha256:9"}}
    assert Trials(tmp_path).open(other) == []
    Trials(tmp_path).write(0, [{"sample": 0}])
    with pytest.raises(UserError, match=r"task\.haystack_sha256"):
        Trials(tmp_path).open(RUN)


def test_one_run_at_a_time_writes_trials(tmp_path: Path, other_run: Process) -> None:  # noqa: F811
    lock = hold(tmp_path, other_run)
    with pytest.raises(UserError, match=f"pid {other_run.pid}.* or choose another folder for `trials`"):
        Trials(tmp_path).open(RUN)
    assert list(tmp_path.iterdir()) == [lock]
    lock.unlink()
    trials = Trials(tmp_path)
    trials.open(RUN)
    assert lock.exists()
    trials.close()
    assert not lock.exists()


def test_a_refused_folder_is_left_as_it_was(tmp_path: Path) -> None:
    for name in ("mine.json", "notes.tmp", "000001.json.tmp"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="something else"):
        Trials(tmp_path).open(CONFIG)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000001.json.tmp", "mine.json", "notes.tmp"]


def test_a_resume_keeps_temporary_files_of_others(tmp_path: Path) -> None:
    Trials(tmp_path).open(RUN)
    Trials(tmp_path).write(0, [{"sample": 0}])
    (tmp_path / "notes.tmp").write_text("mine")
    (tmp_path / "000001.json.tmp").write_text("half")
    assert Trials(tmp_path).open(RUN) == [0]
    assert (tmp_path / "notes.tmp").exists()
    assert not (tmp_path / "000001.json.tmp").exists()


def test_a_damaged_batch_is_reported_and_run_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Trials(tmp_path).open(CONFIG)
    for number in range(3):
        Trials(tmp_path).write(number, [{"sample": number, "f1": 0.25}])
    file = tmp_path / "000001.json"
    file.write_text(file.read_text().replace("0.25", "0.35"))
    with caplog.at_level("INFO"):
        assert Trials(tmp_path).open(CONFIG) == [0, 2]
    assert f"{file} is damaged (its sha256 does not match" in caplog.text
    assert "the batch is run again" in caplog.text
    with pytest.raises(UserError, match=r"000001\.json is damaged"):
        Trials(tmp_path).read()
    Trials(tmp_path).write(1, [{"sample": 1, "f1": 0.25}])
    assert [one["f1"] for one in Trials(tmp_path).read()] == [0.25, 0.25, 0.25]


def test_a_batch_of_another_number_is_damage(tmp_path: Path) -> None:
    Trials(tmp_path).open(CONFIG)
    Trials(tmp_path).write(1, [{"sample": 1}])
    shutil.copy(tmp_path / "000001.json", tmp_path / "000002.json")
    assert Trials(tmp_path).open(CONFIG) == [1]


def test_damaged_settings_are_refused(tmp_path: Path) -> None:
    Trials(tmp_path).open(CONFIG)
    Trials(tmp_path).write(1, [{"sample": 1}])
    file = tmp_path / "settings.json"
    file.write_text(file.read_text().replace('"version": "', '"version": "9'))
    with pytest.raises(UserError, match=r"settings\.json is damaged"):
        Trials(tmp_path).open(CONFIG)


def test_trials_of_earlier_versions_have_no_hash_and_are_continued(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({**CONFIG, "software": software()}, indent=1) + "\n")
    (tmp_path / "000000.json").write_text(json.dumps([{"sample": 0}]))
    trials = Trials(tmp_path)
    assert trials.open(CONFIG) == [0]
    trials.write(1, [{"sample": 1}])
    assert trials.read() == [{"sample": 0}, {"sample": 1}]
