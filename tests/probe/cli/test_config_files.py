"""Shipped configs: found by name, listed, copied, and never written over what differs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from extract.errors import UserError
from probe.cli import copy_configs, find_config, shipped_configs, shipped_files
from probe.cli.main import main
from tests.conftest import ROOT, Run

NAMES = sorted(path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml"))
SCRIPTS = sorted(path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.sh"))
FILES = sorted(NAMES + SCRIPTS)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_shipped_configs_are_those_of_the_repository() -> None:
    assert sorted(shipped_configs()) == NAMES
    assert (sorted(shipped_files()), SCRIPTS) == (FILES, ["slurm/stage.sh"])
    assert all(path.read_bytes() == (ROOT / "configs" / name).read_bytes() for name, path in shipped_files().items())


def test_a_script_is_no_config(empty: Path) -> None:
    for name in SCRIPTS:
        with pytest.raises(UserError, match="no shipped config has this name"):
            find_config(name)


@pytest.mark.parametrize("form", ["{}", "configs/{}", "./configs/{}"])
def test_a_shipped_config_is_found_by_its_name(form: str, empty: Path) -> None:
    assert {find_config(form.format(name)) for name in NAMES} == set(map(str, shipped_configs().values()))


def test_a_file_of_the_working_folder_goes_before_a_shipped_one(
    empty: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "configs").mkdir()
    for name in ("probe.yaml", "configs/regressor.yaml"):
        (empty / name).write_text("trainer: {max_epochs: 7}\n")
        assert find_config(name) == name
    with pytest.raises(SystemExit) as stop:
        run("fit", "-c", "configs/probe.yaml", "-c", "probe.yaml", "--print_config")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "max_epochs: 7" in printed
    assert "hidden:\n    - 8192\n" in printed  # the rest is the shipped config's


@pytest.mark.parametrize("value", ["trainer: {max_epochs: 3}", '{"trainer":{"max_epochs":3}}', "trainer.max_epochs: 3"])
def test_configuration_given_as_text_is_no_name(value: str, empty: Path) -> None:
    assert find_config(value) == value


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("prob.yaml", "probe.yaml"),
        ("configs/regresor.yaml", "regressor.yaml"),
        ("probe", "probe.yaml"),
        ("ablation/niah_k.yml", "ablation/niah_k.yaml"),
        ("llm/llama3-8b.yaml", "llm/llama3.1-8b.yaml"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(value: str, meant: str, empty: Path, run: Run) -> None:
    code, error = run("fit", "-c", value)
    assert code == 2
    expected = (
        f"error: -c {value}: the file does not exist, and no shipped config has this name (did you mean '{meant}'?)"
    )
    assert error.splitlines() == [expected]


def test_nothing_near_suggests_nothing(empty: Path) -> None:
    with pytest.raises(UserError, match=r"no shipped config has this name$"):
        find_config("/nowhere/xyz.yaml")


def test_the_list_has_every_config_with_its_first_comment_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == FILES
    for line in lines:
        name, _, about = line.partition(" ")
        assert (ROOT / "configs" / name).read_text().removeprefix("#!/bin/bash\n").startswith(f"# {about.strip()}\n")
        assert len(line) <= 80


def test_a_copy_is_complete_and_printed_in_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a" / "b"
    assert main(["configs", str(folder)]) == 0
    *names, last = capsys.readouterr().out.splitlines()
    assert contents(folder) == {name: (ROOT / "configs" / name).read_bytes() for name in FILES}
    assert sorted(" ".join(names).split()) == FILES
    assert max(map(len, names)) <= 80
    assert last == f"written: {len(FILES)}; already up to date: 0"


def test_only_what_is_missing_is_written(tmp_path: Path) -> None:
    copy_configs(tmp_path)
    assert copy_configs(tmp_path) == []
    (tmp_path / "probe.yaml").unlink()
    shutil.rmtree(tmp_path / "llm")
    assert copy_configs(tmp_path) == ["probe.yaml", *(name for name in shipped_configs() if name.startswith("llm/"))]


def test_a_file_that_differs_is_kept_unless_forced(tmp_path: Path, run: Run) -> None:
    copy_configs(tmp_path)
    (tmp_path / "rag.yaml").write_text("mine\n")
    (tmp_path / "probe.yaml").unlink()
    before = contents(tmp_path)
    code, error = run("configs", tmp_path)
    assert (code, error) == (
        2,
        f"error: {tmp_path}/rag.yaml would be overwritten; choose another folder, or add --force\n",
    )
    assert contents(tmp_path) == before
    (tmp_path / "regressor.yaml").write_text("mine\n")
    assert "/rag.yaml and 1 more would be overwritten" in run("configs", tmp_path)[1]
    assert run("configs", tmp_path, "--force")[0] == 0
    assert sorted(contents(tmp_path)) == FILES
    assert copy_configs(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_place_of_a_file_is_refused(force: bool, tmp_path: Path) -> None:
    (tmp_path / "rag.yaml").mkdir()
    with pytest.raises(UserError, match=r"rag\.yaml is not a file"):
        copy_configs(tmp_path, force)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("taken", ["there", "there/llm"])
def test_a_file_in_place_of_a_folder_is_one_line(taken: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    code, error = run("configs", tmp_path / "there")
    assert code == 2
    assert error.startswith(f"error: cannot write to {tmp_path}/there: ")
    assert error.count("\n") == 1
    assert contents(tmp_path) == {taken: b"mine"}


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    monkeypatch.setattr(os, "fsync", full_after(3, os.fsync))
    with pytest.raises(UserError, match=r"cannot write .*\.yaml: No space left on device"):
        copy_configs(tmp_path)
    assert contents(tmp_path) == {"mine.yaml": b"mine"}


def full_after(count: int, fsync: Callable[[int], None]) -> Callable[[int], None]:
    """A `fsync` that works `count` times."""
    calls = iter(range(count))

    def sync(handle: int) -> None:
        if next(calls, None) is None:
            raise OSError(28, "No space left on device")
        fsync(handle)

    return sync
