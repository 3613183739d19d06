"""Discovery of the report's sources: results, score stores and probes in the given folders."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.store import TABLES, finished_batches, read_manifest
from extract.utils import read_hashed, user_path
from probe.results import SCHEMA, strict

RESULTS = "results.json"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Result:
    """A `results.json`.

    Attributes:
        path: The file.
        record: Its content.
        time: When it was written, in seconds since the epoch.

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
    """Sources of a report.

    Attributes:
        results: Newest first.
        stores: Score stores.
        probes: Checkpoints and folders of exported probes.
        unfinished: One line about each score store that an extraction has not finished.
        skipped: One line about each source that is left out: results of another schema, damaged or unfinished inputs.

    """

    results: list[Result] = field(default_factory=list)
    stores: list[Path] = field(default_factory=list)
    probes: list[Path] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def find_sources(paths: Sequence[str | Path]) -> Sources:
    """Search folders; a score store is not searched further.

    Raises:
        UserError: a path that does not exist.

    """
    found = Sources()
    for path in map(user_path, paths):
        if not path.exists():
            raise UserError(f"nothing at {path} to report on; name folders of runs, score stores or checkpoints")
        for file in _files(path):
            _classify(file, found)
    found.results.sort(key=lambda result: result.time, reverse=True)
    return found


def _files(path: Path) -> Iterable[Path]:
    """The files of a folder and those below it, in a fixed order; of a score store only its manifest."""
    if path.is_file():
        yield path
        return
    if (path / MANIFEST).is_file() and (path / "steps").is_dir():
        yield path / MANIFEST
        return
    for child in sorted(path.iterdir()):
        if not child.name.startswith("."):
            yield from _files(child)


def _classify(file: Path, found: Sources) -> None:
    """Add a file to the sources of its kind; others are ignored."""
    if file.name == MANIFEST and (file.parent / "steps").is_dir():
        found.stores.append(file.parent)
    elif file.name in ("best.ckpt", "probe.json"):
        found.probes.append(file if file.suffix == ".ckpt" else file.parent)
    elif file.name == RESULTS:
        try:
            record = _read(file)
        except UserError as error:
            found.skipped.append(f"{file} is left out: {error}")
            return
        if (schema := record.get("schema")) == SCHEMA:
            found.results.append(Result(file, record, file.stat().st_mtime))
        else:
            found.skipped.append(
                f"{file} is left out: its schema is {schema}, and this version reads {SCHEMA}; run its command again: "
                f"{record.get('command', 'unknown')}"
            )


def rows_so_far(store: Path) -> str:
    """What an unfinished score store holds, in words; empty for a finished or damaged one."""
    try:
        manifest = read_manifest(store)
    except UserError:
        return ""
    if manifest["complete"]:
        return ""
    batches = [*finished_batches(store).values()] or manifest["shards"]
    samples, steps = (sum(batch[table]["rows"] for batch in batches) for table in TABLES)
    return f" ({steps:,} rows of {samples:,} samples so far)"


def task_name(task: dict[str, Any]) -> str:
    """Class of a store's task, and of the source of its questions.

    >>> task_name({"class": "NIAH"}), task_name({"class": "MultiHopQA", "source": {"class": "HotpotQA"}})
    ('NIAH', 'MultiHopQA, HotpotQA')

    """
    source = task.get("source")
    named = (task.get("class"), source.get("class") if isinstance(source, dict) else None)
    return ", ".join(str(name) for name in named if name) or "task not recorded"


def _read(file: Path) -> dict[str, Any]:
    record, _ = read_hashed(file, "run its command again")
    if not isinstance(record.get("experiment", ""), str):
        raise UserError("it holds no results of `lightning test`")
    plain: dict[str, Any] = strict(record)  # early results hold NaN for a metric that is undefined
    return plain
