"""An extraction keeps the user's files in its folder, and one run at a time writes a store."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from extract import ScoreStore
from extract.store import remove_parts
from extract.utils import LOCK
from extract.utils.files.processes import Process
from tests.extract.utils.test_locks import hold, other_run  # noqa: F401 (fixture)

Extract = Callable[..., tuple[int, str]]


def test_files_of_the_user_stay(
    extract_tiny: Extract,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    other_run: Process,  # noqa: F811
) -> None:
    store = tmp_path / "s"
    store.mkdir()
    mine = {store / name: name for name in ("README.md", "notes.tmp", ".x.drh-tmp")}
    for file, text in mine.items():
        file.write_text(text)
    extract_tiny(store, "--trainer.limit_predict_batches", 1)
    assert not (store / LOCK).exists()  # also after a run that ends before its time
    for name in ("samples/mine.tmp", "parts/mine.json", "steps/000001.arrow.tmp", "manifest.json.tmp"):
        (store / name).write_text(name)
        mine[store / name] = name
    left = [mine.pop(store / name) for name in ("steps/000001.arrow.tmp", "manifest.json.tmp")]
    assert extract_tiny(store)[0] == 0
    assert {file: file.read_text() for file in mine} == mine
    assert not [name for name in left if (store / name).exists()]
    assert f"{store}/README.md was not written by this software" in caplog.text
    hold(store, other_run)
    assert extract_tiny(store)[0] == 0  # a complete store needs no lock
    ScoreStore(store)


def test_a_second_run_is_refused_before_it_writes(extract_tiny: Extract, tmp_path: Path, other_run: Process) -> None:  # noqa: F811
    (tmp_path / "s").mkdir()
    hold(tmp_path / "s", other_run)
    code, error = extract_tiny(tmp_path / "s")
    assert code == 2
    assert f"host {other_run.host}, pid {other_run.pid}" in error
    assert "choose another --store" in error
    assert [file.name for file in (tmp_path / "s").iterdir()] == [LOCK]


def test_a_refused_folder_is_not_left_locked(extract_tiny: Extract, tmp_path: Path) -> None:
    (tmp_path / "s" / "samples").mkdir(parents=True)
    (tmp_path / "s" / "samples" / "mine").write_text("mine")
    assert extract_tiny(tmp_path / "s")[0] == 2
    assert [file.name for file in (tmp_path / "s").iterdir()] == ["samples"]


def test_only_marks_of_batches_are_removed(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("000001.json", "1.json", "notes.json", "0000001.json"):
        (parts / name).write_text(json.dumps(name))
    remove_parts(tmp_path)
    assert sorted(file.name for file in parts.iterdir()) == ["0000001.json", "1.json", "notes.json"]
    for file in parts.iterdir():
        file.unlink()
    remove_parts(tmp_path)
    assert list(tmp_path.iterdir()) == []
