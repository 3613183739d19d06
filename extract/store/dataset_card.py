"""Dataset card of a score store: README.md for the Hugging Face hub, with the config that `datasets` opens."""

from typing import Any

from extract.store.summary import summary_rows
from extract.utils import written_by

CONTENTS = {
    "samples": "one row a prompt: its tokens, evidence spans, question, gold answer, generated answer and metrics",
    "steps": "one row a generated token: final hidden state; scores and most attended position of each head",
}


def store_card(manifest: dict[str, Any]) -> str:
    """Dataset card (README.md) of a finished store.

    Args:
        manifest: The store's manifest.

    """
    from huggingface_hub import DatasetCardData

    llm, task = manifest["llm"], {"class": "a task", **manifest["task"]}
    files = [{"config_name": name, "data_files": f"{name}/*.arrow"} for name in CONTENTS]
    data = DatasetCardData(
        pretty_name=f"Retrieval scores of {llm['name']} on {task['class']}",
        tags=["attention", "retrieval-heads", "interpretability", "dynamic-retrieval-heads"],
        configs=files,
    )
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    tables = "\n".join(f"| `{name}` | {manifest[name]:,} | {what} |" for name, what in CONTENTS.items())
    rows = summary_rows(manifest["summary"]) if manifest.get("summary") else []
    summary = "\n".join(["| summary | mean [95 % interval] |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), ""])
    contribution = (
        " Its logit contribution is what the evidence adds through it to the generated token's logit."
        if manifest.get("contribution")
        else ""
    )
    return f"""---
{data.to_yaml()}
---

# Retrieval scores of {llm["name"]} on {task["class"]}

For every generated token: the model's final hidden state, and two scores of each of its
{llm["layers"]} × {llm["heads"]} attention heads from *Retrieval Heads are Dynamic* (arXiv 2602.11162). The copy-paste
score (Eq. 1) is 1 if the head's most attended token is in the evidence and equals the generated token, else 0; the
reasoning score (Eq. 2) is the share of the head's attention on the evidence.{contribution}
Heads are numbered layer-major: `layer * {llm["heads"]} + index`. Sample numbers begin at 0 in every store; `id` is a
hash of the sample's content.

| table | rows | contents |
|---|---|---|
{tables}

{summary if rows else ""}
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
| software | {written_by(manifest)} |
| versions | {versions} |

`manifest.json` holds every setting and the sha256 of each shard. The texts keep the licence of the task's source; the
hidden states are the output of the LLM, whose own licence applies.
"""
