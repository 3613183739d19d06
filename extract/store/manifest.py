"""Manifest of a score store: the settings that made it, its shards, and their hashes."""

import json
from pathlib import Path
from typing import Any

from extract.errors import UserError
from extract.store.arrow_shards import check_shard
from extract.store.manifest_form import check_manifest, check_part
from extract.utils import digest, read_json, write_bytes

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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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


def part_file(path: Path, batch: int) -> Path:
    """File that marks a batch as finished, written after both of its shards."""
    return path / "parts" / f"{batch:06d}.json"


def finished_batches(path: Path) -> dict[int, dict[str, Any]]:
    """Manifest entries of the batches that an interrupted run finished, by batch number; damaged ones are left out."""
    finished = {}
    for file in sorted((path / "parts").glob("*.json")):
        try:
            part = read_json(file)
            check_part(part, TABLES, str(file))
            intact = not any(check_shard(path, part[table]) for table in TABLES)
        except (ValueError, UserError):
            continue
        if intact:
            finished[part["batch"]] = part
    return finished
