"""Files that are whole or absent: atomic writes, hashes, left-over temporary files."""

import hashlib
import os
from pathlib import Path

from extract.errors import UserError


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(path: Path) -> None:
    """Remove temporary files that a killed run left."""
    for file in path.glob(f"**/*{SUFFIX}"):
        file.unlink(missing_ok=True)


SUFFIX = ".tmp"


def write_bytes(path: Path, data: bytes) -> None:
    """Put a whole file in place at once; on any failure nothing of it stays."""
    temporary = path.with_name(path.name + SUFFIX)
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
