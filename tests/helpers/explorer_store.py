"""A synthetic score store with everything that the explorer shows: prompts, evidence, argmax positions."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from extract.llm import LLM, LLMIdentity
from extract.store import FORMAT, vector_column, write_manifest, write_shard
from extract.utils import digest

NEEDLE = "The magic word is <script>document.title='run'</script>."


def explorer_store(
    path: Path,
    llm: LLM,
    layers: int = 3,
    heads: int = 4,
    prompt: int = 60,
    steps: int = 12,
    samples: int = 12,
    threshold: float = 2,
) -> Path:
    """Write a store of samples of `prompt` tokens or a few more, whose needle contains a script tag.

    A head's Eq. 1 score is 1 where a random linear map of the hidden state exceeds `threshold`: 4 gives about forty of
    1,024 heads a step.
    """
    identity = LLMIdentity(llm.name, f"sha256:{layers * heads:064d}", layers, heads, 8, "float32")
    rng, tokenizer = np.random.default_rng(0), llm.tokenizer
    needle = tokenizer(f" {NEEDLE}", add_special_tokens=False)["input_ids"]
    filler = tokenizer(" The weather was fine.\n", add_special_tokens=False)["input_ids"]
    before = (filler * prompt)[: prompt // 2]
    ids = [*before, *needle, *(filler * prompt)[: max(0, prompt - len(before) - len(needle))]]
    span = [len(before), len(before) + len(needle)]
    rows: list[dict[str, Any]] = [
        {
            **{
                "sample": number,
                "id": f"explorer:{number}",
                "prompt": ids,
                "evidence": [span],
                "question": "What is it?",
            },
            **{"gold": "<script>", "answer": NEEDLE, "steps": steps, "unscored": 0, "accuracy": 1.0, "rouge_l": 0.5},
        }
        for number in range(samples)
    ]
    total, width = samples * steps, layers * heads
    hidden = rng.normal(size=(total, 8)).astype(np.float32)
    logits = hidden @ rng.normal(size=(8, width))
    columns = {
        "sample": pa.array(np.repeat(np.arange(samples), steps)),
        "step": pa.array(np.tile(np.arange(steps), samples).astype(np.int32)),
        "token": pa.array(np.resize(needle, total).astype(np.int32)),
        "hidden": vector_column(hidden),
        "copy_paste": vector_column((logits > threshold).astype(np.uint8)),
        "reasoning": vector_column((1 / (1 + np.exp(-logits))).astype(np.float32)),
        "argmax": vector_column(rng.integers(0, len(ids), size=(total, width)).astype(np.int32)),
    }
    for table in ("samples", "steps"):
        (path / table).mkdir(parents=True)
    entry = {
        "batch": 0,
        "samples": write_shard(path / "samples" / "000000.arrow", pa.Table.from_pylist(rows)),
        "steps": write_shard(path / "steps" / "000000.arrow", pa.table(columns)),
    }
    manifest = {
        **{"format": FORMAT, "complete": True, "command": "lightning predict …", "llm": identity.as_dict()},
        **{"task": {"class": "NIAH", "seed": 0}, "shards": [entry], "fingerprint": digest([entry])},
    }
    write_manifest(path, manifest)
    return path
