"""Files that are complete or absent: atomic writes, hashes, left-over temporary files."""

import hashlib
import os
from pathlib import Path

from extract.errors import UserError

TEMPORARY_SUFFIX = ".tmp"
"""Suffix of a file that is being written."""


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_temporary_files(folder: Path) -> None:
    """Remove temporary files that a killed run left in a folder or below it."""
    for file in folder.glob(f"**/*{TEMPORARY_SUFFIX}"):
        file.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: to a temporary name, synced, renamed.

    Raises:
        UserError: it cannot be written; nothing of it stays.

    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another --store"
        ) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
