"""Provenance of a result: model, store, split, counts, checkpoint, file."""

import datetime
from typing import Any

from extract.utils import software_text
from probe.report.exhibits import Shown

UNITS = ("rows", "steps", "samples", "prompts", "questions")
"""What results count."""


def provenance_lines(one: Shown) -> list[tuple[str, str]]:
    """Names and values; what the record lacks is left out."""
    record = one.result.record
    trained = record.get("probe") or {}  # of masked RAG: the training record of its probe
    llm, store = record.get("llm"), record.get("store") or trained.get("store")
    store_record = store if isinstance(store, dict) else {"fingerprint": store}
    split = record.get("split") or store_record.get("split") or trained.get("split")
    size = f"{llm['layers']} layers × {llm['heads']} heads" if isinstance(llm, dict) else ""
    model = f"{llm['name']} ({size}), {llm['dtype']}, weights {llm['weights'][:19]}" if isinstance(llm, dict) else ""
    lines = [
        ("LLM", model),
        ("store", str(store_record.get("fingerprint") or "")),
        ("test store", str(record["test_store"]) if record.get("test_store", store) != store else ""),
        ("n", counts(record)),
        ("seed", str(record.get("seed", split["seed"] if split else ""))),
        ("split", f"by {split['by']}, {_sizes(split['sizes'])}, seed {split['seed']}" if split else ""),
        ("checkpoint", str(record.get("checkpoint") or "")),
        ("software", software_text(record["software"]) if "software" in record else ""),
        ("file", str(one.result.path)),
        ("written", datetime.datetime.fromtimestamp(one.result.time).strftime("%Y-%m-%d %H:%M")),
        ("older runs", f"{one.older} of the same command, not shown" if one.older else ""),
    ]
    return [(name, text) for name, text in lines if text]


def counts(record: dict[str, Any]) -> str:
    """Numbers of rows, steps, samples, prompts and questions, by part of the split where the record has that."""
    found = []
    for name in UNITS:
        count = record.get(name)
        if isinstance(count, int):
            found.append(f"{count:,} {name}")
        elif isinstance(count, dict) and name != "prompts":  # `prompts` may be a store's record of its prompts
            found.append(f"{name}: {_sizes(count)}")
    return "; ".join(found)


def _sizes(parts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in parts.items())
