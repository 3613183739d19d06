"""What lies in the folders that a report is asked for: results, score stores, probes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extract.errors import UserError
from probe.results import SCHEMA

RESULTS = "results.json"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Result:
    """One file of results.

    Attributes:
        path: The file.
        record: What it holds.
        time: When it was written, seconds since the epoch.

    """

    path: Path
    record: dict[str, Any]
    time: float

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent


@dataclass
class Sources:
    """What lies in the folders.

    Attributes:
        results: Newest first.
        stores: Score stores.
        probes: Checkpoints and exported probes.
        skipped: One line about each file of results that another version wrote, which is left out.

    """

    results: list[Result] = field(default_factory=list)
    stores: list[Path] = field(default_factory=list)
    probes: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def find_sources(paths: Sequence[str | Path]) -> Sources:
    """Walk through folders; a store is not searched for more.

    Raises:
        UserError: a path that does not exist, or results that are no JSON object.

    """
    found = Sources()
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"nothing at {path} to report on; name folders of runs, score stores or checkpoints")
        for file in _files(path):
            _sort(file, found)
    found.results.sort(key=lambda result: result.time, reverse=True)
    return found


def _files(path: Path) -> Iterable[Path]:
    """The files below, in a fixed order; of a score store only its manifest."""
    if path.is_file():
        yield path
        return
    if (path / MANIFEST).is_file() and (path / "steps").is_dir():
        yield path / MANIFEST
        return
    for child in sorted(path.iterdir()):
        if not child.name.startswith("."):
            yield from _files(child)


def _sort(file: Path, found: Sources) -> None:
    """Put a file where it belongs, if it is of interest."""
    if file.name == MANIFEST and (file.parent / "steps").is_dir():
        found.stores.append(file.parent)
    elif file.name in ("best.ckpt", "probe.json"):
        found.probes.append(file if file.suffix == ".ckpt" else file.parent)
    elif file.name == RESULTS:
        record = _read(file)
        if (schema := record.get("schema")) == SCHEMA:
            found.results.append(Result(file, record, file.stat().st_mtime))
        else:
            found.skipped.append(
                f"{file} is left out: its schema is {schema}, and this version reads {SCHEMA}; run its command again: "
                f"{record.get('command', 'unknown')}"
            )


def _read(file: Path) -> dict[str, Any]:
    try:
        # Python writes NaN for a metric that is undefined; a browser's JSON has no NaN.
        record: dict[str, Any] = json.loads(file.read_text(), parse_constant=lambda _: None)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged ({error}); run its command again, or leave it out") from error
    if not isinstance(record, dict):
        raise UserError(f"{file} holds no results of `lightning test`; leave it out")
    return record
