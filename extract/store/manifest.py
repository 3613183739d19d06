"""Manifest of a score store: the settings that made it, its shards, and their hashes."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.store.manifest_form import check_manifest, check_part
from extract.store.verification import damaged_shards
from extract.utils import UnreadableError, digest, hashed_json, read_hashed, read_json, write_bytes

FORMAT = 2
"""Version of the store's layout on disk."""
TABLES = ("samples", "steps")
"""Tables of a store, each a folder of shards."""


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a store folder and check it against its own hash.

    Raises:
        UserError: it is no JSON, of another format, was edited, or lacks a field.

    """
    file = path / "manifest.json"
    try:
        manifest: dict[str, Any] = read_json(file)
        claimed = manifest.pop("sha256")
        known = manifest["format"] == FORMAT
    except UnreadableError as error:
        raise UserError(f"{error}: it is not a manifest of a score store; extract into another folder") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a manifest of a score store; extract into another folder") from error
    if not known:
        raise UserError(f"{file} has format {manifest['format']}; this version reads {FORMAT}: extract again")
    if claimed != digest(manifest):
        raise UserError(f"{file} was edited since it was written: its hash does not match; extract again")
    check_manifest(manifest, TABLES, str(file))
    return manifest


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with its own hash."""
    signed = {**manifest, "sha256": digest(manifest)}
    write_bytes(path / "manifest.json", (json.dumps(signed, indent=1, ensure_ascii=False) + "\n").encode())


def write_part(path: Path, part: dict[str, Any]) -> None:
    """Mark a batch as finished, after both of its shards: their manifest entries, in a file with its own hash."""
    write_bytes(path / "parts" / f"{part['batch']:06d}.json", hashed_json(part))


def content_record(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a finished manifest says of its shards together: `fingerprint`, and the rows of each table.

    Args:
        shards: Entries of the shards, in batch order.

    """
    hashes = [shard[table]["sha256"] for shard in shards for table in TABLES]
    rows = {table: sum(shard[table]["rows"] for shard in shards) for table in TABLES}
    return {"fingerprint": digest(hashes), **rows}


def remove_parts(path: Path) -> None:
    """Remove the marks of finished batches, which the finished manifest replaces; other files in their folder stay."""
    for file in (path / "parts").glob("[0-9]" * 6 + ".json"):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        (path / "parts").rmdir()


def finished_batches(path: Path) -> dict[int, dict[str, Any]]:
    """Manifest entries of the batches that an interrupted run finished, by batch number; damaged ones are left out."""
    parts = [part for file in sorted((path / "parts").glob("*.json")) if (part := _read_part(file))]
    damaged = damaged_shards(path, [part[table] for part in parts for table in TABLES])
    return {part["batch"]: part for part in parts if not any(part[table]["file"] in damaged for table in TABLES)}


def _read_part(file: Path) -> dict[str, Any] | None:
    """Content of a part file; None of a damaged one, whose batch is then run again."""
    try:
        part, _ = read_hashed(file, "run again")
        check_part(part, TABLES, str(file))
        return part if part["batch"] == int(file.stem) else None
    except (UserError, ValueError):
        return None
