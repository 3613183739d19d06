"""Cards (README.md) beside stores and probes: written and replaced only where they are this software's."""

import hashlib
import re
from pathlib import Path

from extract.errors import UserError
from extract.utils.files.writing import write_bytes

CARD = "README.md"
_SEAL = "<!-- written by dynamic-retrieval-heads, {}: replaced by its next card unless it was edited -->\n"
_SEALED = re.compile(re.escape(_SEAL).replace(r"\{\}", r"sha256 ([0-9a-f]{64})"))
_FORMER = re.compile(r"^(library_name: dynamic-retrieval-heads|- dynamic-retrieval-heads)$", re.MULTILINE)
"""Line in the front matter of a card by an earlier version, which has no seal."""


def write_card(folder: Path, text: str) -> str | None:
    """Write a card, unless the folder has a README that is none of ours or was edited since.

    Args:
        folder: Where it goes.
        text: Its content.

    Returns:
        A line to report where an existing file was left, or the card could not be written; None where it was.

    """
    file = folder / CARD
    if file.is_symlink() or (file.exists() and not _replaceable(file)):
        return f"{file} was not written by this software, or was edited since: it is left as it is, without a new card"
    try:
        write_bytes(file, (text + _SEAL.format(f"sha256 {_hash(text)}")).encode())
    except UserError as error:  # what it describes is complete without it
        return str(error)
    return None


def _replaceable(file: Path) -> bool:
    """Whether a file is an unedited card of this software."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    if sealed := list(_SEALED.finditer(text)):
        return sealed[-1].end() == len(text) and sealed[-1][1] == _hash(text[: sealed[-1].start()])
    return text.startswith("---\n") and bool(_FORMER.search(text[4:].partition("\n---\n")[0]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
