"""Small synthetic score stores, written by the project's own shard functions."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from extract.llm import LLMIdentity
from extract.store import FORMAT, vector_column, write_manifest, write_shard
from extract.store.manifest import TABLES
from extract.utils import digest

IDENTITY = LLMIdentity("toy", "sha256:" + "0" * 64, layers=2, heads=3, hidden_size=8, dtype="float32")


def make_store(
    path: Path,
    samples: int = 40,
    shards: int = 4,
    seed: int = 0,
    identity: LLMIdentity = IDENTITY,
    name: str = "toy",
    relation: float = 1.0,
    ids: str | None = None,
    sink: int = 4,
    contribution: bool = False,
) -> Path:
    """A complete store whose scores are a fixed function of the hidden state, with a little noise.

    With `contribution` it has that column, too.

    Samples are known as `name`:number, or by the pattern `ids`. A `relation` of 0 makes the scores noise alone.
    """
    rng = np.random.default_rng(seed)
    heads = identity.layers * identity.heads
    weights = relation * np.random.default_rng(1).normal(size=(identity.hidden_size, heads))
    for table in TABLES:
        (path / table).mkdir(parents=True)
    entries = []
    for number, members in enumerate(np.array_split(np.arange(samples), shards)):
        tables = _tables(rng, members, weights, ids or f"{name}:{{}}")
        if not contribution:
            tables["steps"] = tables["steps"].drop_columns(["contribution"])
        entry: dict[str, Any] = {"batch": number}
        for table in TABLES:
            entry[table] = write_shard(path / table / f"{number:06d}.arrow", tables[table])
        entries.append(entry)
    manifest = {
        "format": FORMAT,
        "complete": True,
        "command": "lightning predict -c configs/extract/niah.yaml",
        "llm": identity.as_dict(),
        "task": {"class": "NIAH", "seed": 0},
        "sink": sink,
        "local": 64,
        "shards": entries,
        "fingerprint": digest(entries),
    }
    write_manifest(path, manifest)
    return path


def _tables(rng: np.random.Generator, members: Any, weights: Any, ids: str) -> dict[str, pa.Table]:
    lengths = rng.integers(3, 9, size=len(members))
    rows = int(lengths.sum())
    hidden = rng.normal(size=(rows, len(weights))).astype(np.float32)
    logits = hidden @ weights + rng.normal(scale=0.3, size=(rows, weights.shape[1]))
    reasoning = (1 / (1 + np.exp(-logits))).astype(np.float32)
    steps = pa.table(
        {
            "sample": pa.array(np.repeat(members, lengths)),
            "step": pa.array(np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)),
            "token": pa.array(rng.integers(0, 9, size=rows).astype(np.int32)),
            "hidden": vector_column(hidden),
            "copy_paste": vector_column((logits > 1).astype(np.uint8)),
            "reasoning": vector_column(reasoning),
            "contribution": vector_column(logits.astype(np.float32)),
        }
    )
    samples = pa.table({"sample": pa.array(members), "id": pa.array([ids.format(member) for member in members])})
    return {"samples": samples, "steps": steps}
