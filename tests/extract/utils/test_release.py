"""Version and commit in records, and runs that another version began."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import extract.utils.release
from extract.errors import UserError
from extract.store import read_manifest, write_manifest
from extract.utils import check_numbers, software
from extract.utils.release import NUMBERS, commit
from probe.results import Trials

Extract = Callable[..., tuple[int, str]]


def git(folder: Path, *args: str) -> None:
    user = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *user, "-C", str(folder), *args], check=True, capture_output=True)


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    """A file of a repository with one commit."""
    file = tmp_path / "repository" / "package" / "module.py"
    file.parent.mkdir(parents=True)
    file.write_text("one = 1\n")
    git(file.parent, "init", str(tmp_path / "repository"))
    git(file.parent, "add", ".")
    git(file.parent, "commit", "-m", "One")
    commit.cache_clear()
    return file


def test_a_checkout_is_named_by_its_commit_and_changes(tracked: Path) -> None:
    clean = commit(tracked)
    assert clean is not None
    assert len(clean) == 12
    commit.cache_clear()
    tracked.write_text("one = 2\n")
    assert commit(tracked) == f"{clean}-dirty"
    commit.cache_clear()
    git(tracked.parent, "commit", "-am", "Two")
    git(tracked.parent, "tag", "v1.2.0")
    assert commit(tracked) == "v1.2.0"


def test_an_environment_within_somebody_elses_repository_has_no_commit(tracked: Path, tmp_path: Path) -> None:
    installed = tracked.parents[1] / ".venv" / "module.py"
    installed.parent.mkdir()
    installed.write_text("two = 2\n")
    assert commit(installed) is None
    outside = tmp_path / "module.py"
    outside.write_text("two = 2\n")
    assert commit(outside) is None


def test_no_git_is_no_commit(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit(tracked) is None


OTHER = {"version": "0.0.1", "commit": "0123456789ab", "numbers": NUMBERS}


def test_only_the_revision_of_the_numbers_refuses() -> None:
    assert check_numbers({"software": software()}, "store s") is None
    line = check_numbers({"software": OTHER}, "store s")
    assert line is not None
    assert "begun by version 0.0.1 (0123456789ab) and goes on with" in line
    for numbers in (NUMBERS - 1, NUMBERS + 1):
        with pytest.raises(UserError, match=rf"begun by version 0\.0\.1 .*, revision {numbers} of the numbers"):
            check_numbers({"software": {**OTHER, "numbers": numbers}}, "store s")
    with pytest.raises(UserError, match="without a revision"):
        check_numbers({}, "store s")


def begin(extract_tiny: Extract, store: Path, record: dict[str, Any] | None) -> None:
    """An interrupted extraction of another version."""
    assert extract_tiny(store, "--trainer.limit_predict_batches", 1)[0] != 0
    manifest = read_manifest(store)
    assert manifest.pop("software") == software()
    write_manifest(store, manifest if record is None else {**manifest, "software": record})


def test_an_extraction_of_another_commit_goes_on_and_says_so(
    extract_tiny: Extract, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(extract_tiny, tmp_path / "s", OTHER)
    assert extract_tiny(tmp_path / "s")[0] == 0
    assert f"score store {tmp_path / 's'} was begun by version 0.0.1 (0123456789ab)" in caplog.text
    assert read_manifest(tmp_path / "s")["software"] == OTHER


@pytest.mark.parametrize("record", [None, {**OTHER, "numbers": NUMBERS + 1}])
def test_an_extraction_of_other_numbers_is_refused(
    record: dict[str, Any] | None, extract_tiny: Extract, tmp_path: Path
) -> None:
    begin(extract_tiny, tmp_path / "s", record)
    before = {file: file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()}
    code, error = extract_tiny(tmp_path / "s")
    assert code == 2
    assert "what it writes may differ; begin another, or continue with that version" in error
    assert {file: file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()} == before


def test_a_complete_store_of_other_numbers_stays_and_says_so(
    extract_tiny: Extract, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert extract_tiny(tmp_path / "s")[0] == 0
    manifest = read_manifest(tmp_path / "s")
    del manifest["software"]
    write_manifest(tmp_path / "s", manifest)
    assert extract_tiny(tmp_path / "s")[0] == 0
    assert "complete already (by a version without a revision of its numbers, which may differ" in caplog.text


def test_trials_of_other_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Trials(tmp_path / "trials")
    assert trials.open({"a": 1}) == []
    trials.write(0, [{"sample": 0}])
    assert json.loads((tmp_path / "trials" / "settings.json").read_text())["software"] == software()
    assert trials.open({"a": 1}) == [0]
    monkeypatch.setattr(extract.utils.release, "NUMBERS", NUMBERS + 1)
    with pytest.raises(UserError, match=rf"revision {NUMBERS} of the numbers, and this one has revision"):
        trials.open({"a": 1})
