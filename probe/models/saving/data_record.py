"""Record of the training data in a checkpoint."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from datamodules import ScoreRows
from extract.utils import software


def data_record(rows: ScoreRows, seen: Iterable[str] = ()) -> dict[str, Any]:
    """Training record of a data module: LLM, store, target, split, and ids of training and validation samples.

    Args:
        rows: The data module.
        seen: Samples that the probe was fitted on before, in this store or another.

    """
    return {
        "llm": rows.identity.as_dict(),
        "store": rows.store.fingerprint,
        "target": rows.target,
        "excluded": None if rows.store.excluded is None else asdict(rows.store.excluded),
        "split": rows.split_record(),
        "software": software(),
        "seen": sorted({*rows.split_ids("train"), *rows.split_ids("val"), *seen}),
    }


def split_text(record: dict[str, Any]) -> str:
    """A split of a training record, for messages."""
    names = ("seed", "limit", "offset")
    return f"by {record['by']} {record['fractions']}, " + ", ".join(f"{name} {record.get(name)}" for name in names)
