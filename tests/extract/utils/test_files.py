"""Files are replaced whole or not at all, links lead nowhere, and only temporary files of ended processes are swept."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from extract.utils import remove_temporary_files, replacing, replacing_folder, write_bytes, write_together
from extract.utils.files.processes import Process, this_process
from extract.utils.files.writing import FOREIGN_AGE, temporary_name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails_at(count: int, error: BaseException) -> Callable[..., None]:
    """A function that raises at its call of this number, and does nothing before."""
    calls = iter(range(count))

    def call(*_: object) -> None:
        if next(calls, None) is None:
            raise error

    return call


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, error: BaseException
) -> None:
    write_bytes(tmp_path / "x", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(at, fails_at(0, error))
        with pytest.raises((UserError, KeyboardInterrupt)):
            write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


@given(failing=st.integers(0, 2))
def test_files_that_belong_together_are_complete_before_the_first_is_replaced(
    tmp_path_factory: pytest.TempPathFactory, failing: int
) -> None:
    folder = tmp_path_factory.mktemp("together")
    old = {folder / name: name.encode() for name in "abc"}
    write_together(old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fails_at(failing, OSError(28, "No space left on device")))
        with pytest.raises(UserError, match=f"cannot write .*/{'abc'[failing]}: No space left"):
            write_together(dict.fromkeys(old, b"new"))
    assert {path: path.read_bytes() for path in folder.iterdir()} == old


def test_a_folder_is_complete_or_absent(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "model") as folder:
        (folder / "half").write_bytes(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    with replacing_folder(tmp_path / "model") as folder:
        (folder / "whole").write_bytes(b"whole")
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("guess", ["x.tmp", ".x.tmp", "x.drh-tmp"])
def test_a_link_at_a_name_that_can_be_guessed_is_not_followed(tmp_path: Path, guess: str) -> None:
    (tmp_path / "victim").write_bytes(b"victim")
    (tmp_path / guess).symlink_to("victim")
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "victim").read_bytes() == b"victim"
    assert (tmp_path / guess).is_symlink()


def test_the_temporary_name_itself_is_created_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_bytes(b"victim")
    (tmp_path / "guessed").symlink_to("victim")
    monkeypatch.setattr("extract.utils.files.writing.temporary_name", lambda path: path.with_name("guessed"))
    with pytest.raises(UserError, match="File exists"):
        write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "victim").read_bytes() == b"victim"


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("target", ["below/target", "below/absent"])
def test_a_link_stays_where_the_user_named_it_and_is_replaced_elsewhere(
    tmp_path: Path, follow: bool, target: str
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "target").write_bytes(b"old")
    (tmp_path / "second").symlink_to(target)
    (tmp_path / "link").symlink_to("second")
    write_bytes(tmp_path / "link", b"new", follow=follow)
    assert (tmp_path / "link").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink() is follow
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "below" / "target").read_bytes() == (b"new" if follow and "target" in target else b"old")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "round").symlink_to("round")
    for name, why in {"pipe": "regular", "folder": "regular", "null": "regular", "round": "circle"}.items():
        with pytest.raises(UserError, match=why):
            write_bytes(tmp_path / name, b"new", follow=True)
    assert names(tmp_path) == ["folder", "null", "pipe", "round"]


def test_a_link_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("target")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    if (tmp_path / "link").lstat().st_uid == 0:
        os.lchown(tmp_path / "link", 54321, -1)
    with pytest.raises(UserError, match="a symbolic link of another user"):
        write_bytes(tmp_path / "link", b"new", follow=True)


@given(mode=st.sampled_from([0o600, 0o640, 0o644]))
def test_permissions_stay(tmp_path_factory: pytest.TempPathFactory, mode: int) -> None:
    file = tmp_path_factory.mktemp("mode") / "x"
    write_bytes(file, b"old")
    file.chmod(mode)
    write_bytes(file, b"new")
    assert file.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "s\udcff"])
def test_long_and_odd_names_can_be_written(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / name, b"new")
    assert names(tmp_path) == [name]


def left_over(path: Path, owner: Process, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary file for `path` that a process left."""
    with monkeypatch.context() as patch:
        patch.setattr("extract.utils.files.writing.this_process", lambda: owner)
        temporary = temporary_name(path)
    temporary.write_bytes(b"half")
    return temporary


def test_only_what_ended_processes_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = this_process()
    ended = Process(own.host, own.system, own.pid, own.started + 1)  # its number was given again
    other = Process("other", "0" * 12, 1, 1)
    gone = [left_over(tmp_path / "a", ended, monkeypatch), left_over(tmp_path / "b", other, monkeypatch)]
    os.utime(gone[1], times=(0, gone[1].stat().st_mtime - FOREIGN_AGE - 60))
    gone[0].with_name(gone[0].name.replace(".a.", ".folder.")).mkdir()
    kept = [left_over(tmp_path / "c", own, monkeypatch), left_over(tmp_path / "d", other, monkeypatch)]
    users = ["notes.tmp", ".drh-tmp", ".x.drh-tmp", "x.drh-tmp", "000001.arrow.tmp.bak", "1.arrow.tmp", "README.md.tmp"]
    former = ["000001.arrow.tmp", "000001.json.tmp", "manifest.json.tmp"]
    for name in (*users, *former):
        (tmp_path / name).write_text("mine")
    (tmp_path / "below").mkdir()
    below = left_over(tmp_path / "below" / "a", ended, monkeypatch)
    remove_temporary_files(tmp_path, tmp_path / "absent")
    assert names(tmp_path) == sorted([*users, *former, "below", *(path.name for path in kept)])
    assert below.exists()
    remove_temporary_files(tmp_path, former=True)
    assert names(tmp_path) == sorted([*users, "below", *(path.name for path in kept)])


def test_unfinished_folders_of_earlier_versions_are_swept_on_another_day(tmp_path: Path) -> None:
    old, new, users = (tmp_path / name for name in (".converting-ab3_x9kq", ".configs-ab3_x9kq", ".converting-mine"))
    for folder in (old, new, users):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    for folder in (old, users):
        os.utime(folder, times=(0, folder.stat().st_mtime - FOREIGN_AGE - 60))
    remove_temporary_files(tmp_path, former=True)
    assert names(tmp_path) == sorted([new.name, users.name])


def test_a_killed_write_leaves_the_former_file_and_one_name_that_is_swept(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from extract.utils import write_bytes\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_bytes(Path(sys.argv[1]), bytes(100_000))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False)
    assert done.returncode == -9
    assert (tmp_path / "x").read_bytes() == b"old"
    assert re.fullmatch(r"\.x\.[0-9a-f]{12}-\d+-\d+-[0-9a-f]{16}\.drh-tmp", names(tmp_path)[0])
    remove_temporary_files(tmp_path)
    assert names(tmp_path) == ["x"]


def test_a_block_may_write_in_pieces(tmp_path: Path) -> None:
    with replacing(tmp_path / "x") as file:
        file.write(b"a")
        assert not (tmp_path / "x").exists()
        file.write(b"b")
    assert (tmp_path / "x").read_bytes() == b"ab"
