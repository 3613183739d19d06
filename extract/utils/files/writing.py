"""Files that are complete or absent: atomic replacement, hashes, and what killed runs left."""

import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from extract.errors import UserError
from extract.utils.files.processes import Process, this_process

Buffer = bytes | memoryview
"""Content of a file."""
TEMPORARY_SUFFIX = ".drh-tmp"
"""Suffix of a file or folder that is being written: `.NAME.SYSTEM-PID-START-RANDOM.drh-tmp`, beside its target."""
FORMER_TEMPORARY = re.compile(r"(\d{6}\.(arrow|json)|manifest\.json|settings\.json)\.tmp")
"""Names of the temporary files that earlier versions left in score stores and folders of trials."""
FORMER_FOLDER = re.compile(r"\.(converting|configs)-[a-z0-9_]{8}")
"""Names of their unfinished conversions of models, and of the folders through which they copied configs."""
FOREIGN_AGE = 24 * 3600.0
"""Seconds after which the temporary file of a process that cannot be known is left over: none takes so long."""
_OWN = re.compile(r"\..+\.([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{16}" + re.escape(TEMPORARY_SUFFIX))


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, data: Buffer, follow: bool = False) -> None:
    """Write a file atomically: under a temporary name beside it, synced, renamed.

    Args:
        path: The file.
        data: Its content.
        follow: See `replacing`.

    Raises:
        UserError: it cannot be written; nothing of it stays, and what was there before is unchanged.

    """
    with replacing(path, follow) as file:
        file.write(data)


def write_together(files: Mapping[Path, Buffer]) -> None:
    """Write files that belong together: all are complete on disk before the first takes its place, in this order.

    Raises:
        UserError: one cannot be written; none is replaced then.

    """
    staged: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            with _errors(path):
                staged[path] = _stage(path, data)
        for path, temporary in staged.items():
            with _errors(path):
                temporary.replace(path)
        for folder in {path.parent for path in staged}:
            _sync_folder(folder)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def _stage(path: Path, data: Buffer) -> Path:
    """Content of a file, complete on disk under its temporary name."""
    temporary = temporary_name(path)
    try:
        with _create(temporary, path) as file:
            file.write(data)
            _sync(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@contextmanager
def replacing(path: Path, follow: bool = False) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an exception.

    Args:
        path: The file to replace.
        follow: Whether a symbolic link at `path` stays and the file that it names is replaced. For outputs that the
            user names; elsewhere a link is replaced itself, so that no link leads out of a folder of ours.

    Raises:
        UserError: it cannot be written, or it is no regular file; what was there before is unchanged.

    """
    target = _linked(path) if follow else path
    if not target.is_symlink() and target.exists() and not target.is_file():
        raise UserError(f"cannot write {path}: it is not a regular file; choose another name")
    temporary = temporary_name(target)
    with _errors(path):
        try:
            with _create(temporary, target) as file:
                yield file
                _sync(file)
            temporary.replace(target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Make a folder that takes the place of `path`, which must be absent or empty, when the block ends normally."""
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):  # folders, too: their entries are their content
            _sync_folder(file) if file.is_dir() else _sync_file(file)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """A new name beside a file, under which it is written; it tells which process writes."""
    owner = this_process()
    mark = f"{owner.system}-{owner.pid}-{owner.started}-{secrets.token_hex(8)}"
    name = path.name.encode(errors="surrogateescape")[:64].decode(errors="ignore")  # names have at most 255 bytes
    return path.with_name(f".{name}.{mark}{TEMPORARY_SUFFIX}")


def remove_temporary_files(*folders: Path, former: bool = False) -> None:
    """Remove the temporary files that killed runs left in folders, not below them; those of running processes stay.

    Args:
        folders: Of files that this software writes; absent ones are ignored.
        former: Remove those of earlier versions, too: only where these left such names.

    """
    for folder in folders:
        with suppress(OSError):  # absent, or not to be read
            for path in list(folder.iterdir()):
                if _left_over(path) or (former and _left_by_former_version(path)):
                    _remove(path)


def _left_over(path: Path) -> bool:
    """Whether a name is that of a temporary file of ours whose process is gone."""
    if not (found := _OWN.fullmatch(path.name)):
        return False
    running = Process("", found[1], int(found[2]), int(found[3])).running()
    return _is_old(path) if running is None else not running


def _left_by_former_version(path: Path) -> bool:
    """The same for an earlier version, whose names tell no process."""
    if path.is_dir():
        return bool(FORMER_FOLDER.fullmatch(path.name)) and _is_old(path)
    return bool(FORMER_TEMPORARY.fullmatch(path.name))


def _is_old(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > FOREIGN_AGE


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _linked(path: Path) -> Path:
    """The file that a chain of symbolic links of this user names.

    Raises:
        UserError: a link is another user's, or the chain has no end.

    """
    for _ in range(40):
        if not path.is_symlink():
            return path
        if path.lstat().st_uid not in (os.getuid(), 0):
            raise UserError(f"cannot write {path}: it is a symbolic link of another user; choose another name")
        path = path.parent / path.readlink()
    raise UserError(f"cannot write {path}: its symbolic links lead in a circle; choose another name")


def _create(temporary: Path, target: Path) -> BinaryIO:
    """A new file, never one that exists or that a link names; its permissions are those of what it replaces."""
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    if target.is_file() and not target.is_symlink():
        with suppress(OSError):
            os.fchmod(handle, stat.S_IMODE(target.stat().st_mode))
    return os.fdopen(handle, "wb")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Errors of the file system as one line for the user."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_file(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename last, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
