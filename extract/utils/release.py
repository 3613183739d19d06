"""Version of this software in records, and what a run that continues another's must share with it."""

import functools
import importlib.metadata
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extract.errors import UserError

DISTRIBUTION = "dynamic-retrieval-heads"
NUMBERS = 1
"""Revision of the numbers: raised with every change after which the same command writes other rows or trials."""


def software() -> dict[str, Any]:
    """Version, commit and revision of the numbers, for manifests, trials, results and checkpoints.

    >>> sorted(software())
    ['commit', 'numbers', 'version']

    """
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        version = "unknown"
    return {"version": version, "commit": commit(Path(__file__)), "numbers": NUMBERS}


@functools.cache
def commit(file: Path) -> str | None:
    """`git describe` of the repository that tracks a file, with `-dirty` for changed files; None outside of one.

    An installed package is tracked by no repository, also where its environment lies within one.

    """
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)
        return _git(file, "describe", "--tags", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(file: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(file.parent), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def check_numbers(record: Mapping[str, Any], what: str) -> str | None:
    """Refuse to continue what another revision of the numbers began.

    Args:
        record: What holds the `software` that began it; records of early versions have none.
        what: Name of it, for messages.

    Returns:
        A line to report where the commit differs and the numbers do not; None where there is nothing to report.

    Raises:
        UserError: the revision differs.

    >>> check_numbers({}, "store s")
    Traceback (most recent call last):
    extract.errors.UserError: store s was begun by a version without a revision of its numbers, and this one has \
    revision 1: what it writes may differ; begin another, or continue with that version

    """
    former, own = record.get("software"), software()
    if former is None or former["numbers"] != own["numbers"]:
        raise UserError(
            f"{what} was begun by {_named(former)}, and this one has revision {own['numbers']}: what it writes may "
            "differ; begin another, or continue with that version"
        )
    if former == own:
        return None
    return f"{what} was begun by {software_text(former)} and goes on with {software_text(own)}: equal numbers"


def written_by(record: Mapping[str, Any]) -> str:
    """What wrote a finished record, and whether this version would write other numbers.

    >>> written_by({})
    'a version without a revision of its numbers, which may differ from those of this version'

    """
    former = record.get("software")
    text = _named(former)
    equal = former is not None and former["numbers"] == NUMBERS
    return text if equal else f"{text}, which may differ from those of this version"


def _named(former: Mapping[str, Any] | None) -> str:
    if former is None:
        return "a version without a revision of its numbers"
    return f"{software_text(former)}, revision {former['numbers']} of the numbers"


def software_text(record: Mapping[str, Any]) -> str:
    """Version and commit as text.

    >>> software_text({"version": "0.1.0", "commit": "32a2f67-dirty", "numbers": 1})
    'version 0.1.0 (32a2f67-dirty)'

    """
    return f"version {record['version']}" + (f" ({record['commit']})" if record["commit"] else "")
