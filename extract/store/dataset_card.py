"""The dataset card of a score store: what the Hugging Face hub shows, and lets `datasets` open the shards."""

from typing import Any

TABLES = {
    "samples": "one row a prompt: its tokens, evidence spans, question, gold answer, answer and metrics",
    "steps": "one row a generated token: final hidden state; Eq. 1, Eq. 2 and the most attended position of each head",
}


def store_card(manifest: dict[str, Any]) -> str:
    """README.md of a complete store.

    Args:
        manifest: The store's.

    """
    from huggingface_hub import DatasetCardData

    llm, task = manifest["llm"], manifest["task"]
    files = [{"config_name": name, "data_files": f"{name}/*.arrow"} for name in TABLES]
    data = DatasetCardData(
        pretty_name=f"Retrieval scores of {llm['name']} on {task['class']}",
        tags=["attention", "retrieval-heads", "interpretability", "dynamic-retrieval-heads"],
        configs=files,
    )
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    tables = "\n".join(f"| `{name}` | {manifest[name]:,} | {what} |" for name, what in TABLES.items())
    return f"""---
{data.to_yaml()}
---

# Retrieval scores of {llm["name"]} on {task["class"]}

For every generated token the model's final hidden state, and how each of its {llm["layers"]} × {llm["heads"]} attention
heads scores: whether it copies from the evidence (Eq. 1 of *Retrieval Heads are Dynamic*, arXiv 2602.11162), and how
much of its attention goes there (Eq. 2). Heads are numbered layer-major: `layer * {llm["heads"]} + index`.

| table | rows | what |
|---|---|---|
{tables}

```python
from datasets import load_dataset

steps = load_dataset("arrow", data_files="steps/*.arrow", split="train")
```

| | |
|---|---|
| LLM | {llm["name"]}, {llm["weights"]}, {llm["dtype"]} |
| task | {task["class"]}, seed {task.get("seed", "none")} |
| command | `{manifest["command"]}` |
| fingerprint | `{manifest["fingerprint"]}` |
| versions | {versions} |

`manifest.json` holds every setting and the sha256 of each shard. The texts keep the licence of the task's source; the
hidden states are the output of the LLM, whose own licence applies.
"""
