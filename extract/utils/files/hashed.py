"""Files that carry their own SHA-256: JSON objects as their last member, zip archives as their comment."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from extract.errors import UserError
from extract.utils.files.reading import parse_json, read_text

HASH = "sha256"
"""Name of the last member of a hashed JSON object."""
BLANK = "0" * 64
"""What stands in the hash's place while the file is hashed."""
_LAST_MEMBER = re.compile(rb'"[^"]{6}": ?"[^"]{64}"\s*\}\Z')  # of a hashed object, even if a byte of it is damaged

COMMENT = b"sha256:"
"""Beginning of a hashed zip archive's comment; 64 hexadecimal digits follow."""
_COMMENT_SIZE = len(COMMENT) + 64
_END = b"PK\x05\x06"  # beginning of the archive's last record, whose last two bytes are the comment's size
_END_SIZE = 22


def hashed_json(content: Mapping[str, Any], **options: Any) -> bytes:
    r"""JSON text of an object with a last member `sha256`: the hash of the text's bytes with 64 zeros in its place.

    Bytes are hashed, not values, so that every changed byte is found, whether or not it changes the meaning.

    Args:
        content: The object, in plain values.
        **options: For `json.dumps`.

    >>> data = hashed_json({"steps": 3})
    >>> parse_hashed(data)
    ({'steps': 3}, True)
    >>> parse_hashed(data.replace(b"3", b"4", 1))
    Traceback (most recent call last):
    ValueError: its sha256 does not match: it was damaged or edited

    """
    data = json.dumps({**content, HASH: BLANK}, **options).encode()
    before, blank, after = data.rpartition(BLANK.encode())
    return before + hashlib.sha256(before + blank + after).hexdigest().encode() + after + b"\n"


def parse_hashed(data: bytes) -> tuple[dict[str, Any], bool]:
    """The object in a JSON text without its hash, and whether it has one; what earlier versions wrote has none.

    Raises:
        ValueError: it is no JSON object, or its hash does not match.

    """
    value = parse_json(data.decode(), "it")
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    text = data.rstrip(b"\n")
    if HASH not in value and not _LAST_MEMBER.search(text[-96:]):
        return value, False
    claimed = value.pop(HASH, None)
    before, _, after = text.rpartition(str(claimed).encode())
    if claimed != hashlib.sha256(before + BLANK.encode() + after).hexdigest():
        raise ValueError("its sha256 does not match: it was damaged or edited")
    return value, True


def read_hashed(path: Path, remedy: str) -> tuple[dict[str, Any], bool]:
    """As `parse_hashed`, of a file.

    Args:
        path: The file.
        remedy: What to do about a damaged one, for the message.

    Raises:
        UserError: it cannot be read, it is no JSON object, or its hash does not match.

    """
    try:
        return parse_hashed(read_text(path).encode())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({str(error).removeprefix(f'{path} ')}); {remedy}") from error


def add_zip_hash(archive: BinaryIO) -> None:
    """Write the SHA-256 of a zip archive as its comment, which readers of the format ignore.

    The hash covers every byte before the comment, the comment's size included.

    Args:
        archive: An archive without a comment, open for reading and writing.

    """
    archive.seek(-_END_SIZE, os.SEEK_END)
    end = archive.read(_END_SIZE)
    if not _ends(end, comment=0):
        raise ValueError("no zip archive without a comment")
    archive.seek(-2, os.SEEK_END)
    archive.write(_COMMENT_SIZE.to_bytes(2, "little"))
    digest = _digest(archive, archive.seek(0, os.SEEK_END))
    archive.write(COMMENT + digest.encode())


def check_zip_hash(archive: BinaryIO) -> bool:
    """Compare a zip archive with the hash in its comment; whether there is one. The archive is read to its end.

    Raises:
        ValueError: its hash does not match, or its end is damaged.

    """
    size = archive.seek(0, os.SEEK_END)
    archive.seek(max(0, size - _END_SIZE - _COMMENT_SIZE))
    last = archive.read()
    end, comment = last[:-_COMMENT_SIZE], last[-_COMMENT_SIZE:]
    if end[:4] != _END and not comment.startswith(COMMENT):
        if _starts_as_zip(archive) and not _ends(last[-_END_SIZE:], comment=0):
            raise ValueError("its end is damaged or missing")
        return False
    if not _ends(end, _COMMENT_SIZE) or comment != COMMENT + _digest(archive, size - _COMMENT_SIZE).encode():
        raise ValueError("its sha256 does not match: it was damaged or edited")
    return True


def _ends(end: bytes, comment: int) -> bool:
    """Whether bytes are the last record of a zip archive with a comment of a size."""
    return len(end) == _END_SIZE and end.startswith(_END) and end.endswith(comment.to_bytes(2, "little"))


def _starts_as_zip(archive: BinaryIO) -> bool:
    archive.seek(0)
    return archive.read(4) == b"PK\x03\x04"


def _digest(file: BinaryIO, size: int) -> str:
    """Hash of a file's first bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, 1 << 20))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()
