"""Fields that a store's manifest must have: a manifest may be rightly hashed and still be made by other hands."""

import re
from collections import Counter
from typing import Any

from extract.errors import UserError
from extract.utils import check_form, count

TEXT = str
OPTIONAL = (str, type(None))
IDENTITY = {
    **{"name": TEXT, "weights": TEXT, "dtype": TEXT},
    **{"layers": count(1), "heads": count(1), "hidden_size": count(1)},
}
"""Fields of an LLM's identity without which it is none."""
IDENTITY_REMARKS = ("config", "tokenizer", "generation_config")
"""Fields of it that early records lack."""
SOFTWARE = {"version": TEXT, "commit": OPTIONAL, "numbers": count()}
"""Fields of the record of what wrote it; early ones have none."""
BEGUN = {"complete": bool, "command": TEXT, "llm": dict, "task": dict}
"""Fields of a manifest from the beginning of its extraction on."""
NUMBER = (int, float)
MAYBE_NUMBER = (int, float, type(None))
ESTIMATE = {"value": MAYBE_NUMBER, "low": MAYBE_NUMBER, "high": MAYBE_NUMBER, "n": count()}
HEADS = {"value": MAYBE_NUMBER, "steps": count()}
SUMMARY = {
    "metrics": dict,
    "dynamic_heads": {"copy_paste": HEADS, "reasoning": {**HEADS, "threshold": NUMBER}},
    "at_budget": ESTIMATE,
}
"""Fields of a finished store's summary; early stores have none."""
_FILE = re.compile(r"[\w.-]*\w[\w.-]*")


def check_identity(record: Any, where: str) -> None:
    """Refuse the record of an LLM's identity that lacks a field, has an unknown one or one of another type.

    Args:
        record: Of `LLMIdentity.as_dict`.
        where: Its place, for the message.

    Raises:
        UserError: naming the field.

    """
    check_form(record, IDENTITY, where)
    for key in record:
        if key in IDENTITY_REMARKS:
            check_form(record[key], TEXT, f"{where}, {key}")
        elif key not in IDENTITY:
            raise UserError(f"{where}: '{str(key)[:40]}' is no field of an LLM's identity")


def check_part(part: Any, tables: tuple[str, ...], where: str) -> None:
    """Refuse the entry of a batch that lacks a field, or names a file outside of its table's folder.

    Args:
        part: Of the manifest's shards, or of a finished batch.
        tables: Names of the tables.
        where: Its place, for the message.

    Raises:
        UserError: naming the field.

    """
    shard = {"file": TEXT, "rows": count(), "bytes": count(), "sha256": TEXT}
    check_form(part, {"batch": count(), **dict.fromkeys(tables, shard)}, where)
    for table in tables:
        folder, _, name = part[table]["file"].partition("/")
        if folder != table or not _FILE.fullmatch(name):
            raise UserError(f"{where}, {table}: file {part[table]['file'][:80]!r} is not in the store's {table}/")


def check_manifest(manifest: dict[str, Any], tables: tuple[str, ...], where: str) -> None:
    """Refuse a manifest that lacks a field, has one of another type, or names a shard twice or outside of the store.

    Args:
        manifest: Without its hash.
        tables: Names of the tables.
        where: Its file, for the message.

    Raises:
        UserError: naming the field.

    """
    check_form(manifest, BEGUN, where)
    check_identity(manifest["llm"], f"{where}, llm")
    for key in ("sink", "local"):
        if key in manifest:
            check_form(manifest[key], count(), f"{where}, {key}")
    if "contribution" in manifest:
        check_form(manifest["contribution"], bool, f"{where}, contribution")
    if "share" in manifest:
        check_form(manifest["share"], TEXT, f"{where}, share")
    if manifest.get("software") is not None:
        check_form(manifest["software"], SOFTWARE, f"{where}, software")
    if not manifest["complete"]:
        return
    check_form(manifest, {"fingerprint": TEXT, "shards": list}, where)
    if manifest.get("summary") is not None:
        check_form(manifest["summary"], SUMMARY, f"{where}, summary")
        for name, metric in manifest["summary"]["metrics"].items():
            check_form(metric, ESTIMATE, f"{where}, summary, metrics, {name}")
    if not manifest["shards"]:
        raise UserError(f"{where}: it lists no shard; extract again")
    for number, part in enumerate(manifest["shards"]):
        check_part(part, tables, f"{where}, shards, {number}")
    files = Counter(part[table]["file"] for part in manifest["shards"] for table in tables)
    if repeated := [file for file, times in files.items() if times > 1]:
        raise UserError(f"{where}: it lists shard {repeated[0]} twice")
