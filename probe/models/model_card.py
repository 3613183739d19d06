"""The model card beside a checkpoint: what the probe is, what it learned from, and how well it does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from extract.utils import write_bytes

LIBRARY = "dynamic-retrieval-heads"
NAME = "README.md"
ABOUT = {
    "copy_paste": "which attention heads copy from the context at this step (Eq. 1)",
    "reasoning": "how much of each attention head's weight goes to the evidence (Eq. 2)",
}


def probe_card(
    kind: str,
    origin: Mapping[str, Any],
    command: str,
    results: Mapping[str, Any] | None = None,
    file: str = "best.ckpt",
) -> str:
    """README.md of a probe.

    Args:
        kind: Name of its class.
        origin: What it was trained on (`TrainedOnRows.origin`).
        command: What made these figures, or the probe itself where there are none.
        results: Those of `lightning test`, with `probe` and its baselines; None before a test.
        file: What `probe.load` takes.

    """
    llm, split = origin["llm"], origin["split"]
    return f"""---
{_metadata(kind, origin, results)}
---

# {kind} for {llm["name"]}

It predicts from the LLM's final hidden state {ABOUT[origin["target"]]}. It says nothing about another LLM, and
refuses its hidden states.

{_usage(kind, llm, file)}

## Metrics

{_metrics(results)}

## Made from

| | |
|---|---|
| LLM | {llm["name"]}, {llm["weights"]}, {llm["layers"]} layers × {llm["heads"]} heads, {llm["dtype"]} |
| data | score store `{origin["store"]}`, {origin["target"]} |
| split | by {split["by"]}, {split["sizes"]}, seed {split["seed"]} |
| command | `{command}` |
| paper | *Retrieval Heads are Dynamic*, arXiv 2602.11162 |
| licence | Apache-2.0, as the software; the LLM keeps its own |
"""


def _usage(kind: str, llm: Mapping[str, Any], file: str) -> str:
    if kind == "OffsetProbes":
        return f"Probes of the heads of each later step: `lightning test -c configs/offsets.yaml --ckpt_path {file}`."
    return f"""```python
import probe

trained = probe.load("{file}")
scores = trained.predict_scores(hidden)  # [rows, {llm["hidden_size"]}] -> [rows, {llm["layers"] * llm["heads"]} heads]
```"""


def _metadata(kind: str, origin: Mapping[str, Any], results: Mapping[str, Any] | None) -> str:
    """The card's front matter, with the metrics as the hub knows them."""
    from huggingface_hub import EvalResult, ModelCardData

    found = [
        EvalResult(
            task_type="other",
            task_name="predict the retrieval scores of attention heads",
            dataset_type=LIBRARY,
            dataset_name=f"score store {origin['store'][:12]}",
            metric_type=name,
            metric_value=round(value, 4),
        )
        for name, value in _figures(results, "probe").items()
    ]
    base = origin["llm"]["name"]
    data = ModelCardData(
        license="apache-2.0",
        library_name=LIBRARY,
        tags=["attention", "retrieval-heads", "interpretability", "probe"],
        base_model=None if ":" in base or Path(base).exists() else base,  # the hub takes ids of its own alone
        model_name=kind if found else None,
        eval_results=found or None,
    )
    return str(data.to_yaml())


def _figures(results: Mapping[str, Any] | None, who: str) -> dict[str, float]:
    figures = (results or {}).get(who, {})
    return {name: value for name, value in figures.items() if isinstance(value, float) and name != "threshold"}


def _metrics(results: Mapping[str, Any] | None) -> str:
    """A table of probe and baselines with their intervals."""
    if results and "offsets" in results:
        return _by_offset(results["offsets"])
    evaluated = [who for who in ("probe", "static", "ridge") if _figures(results, who)]
    if not evaluated or results is None:
        return "Not evaluated yet: `lightning test … --ckpt_path …` fills this in."
    lines = ["| | " + " | ".join(evaluated) + " |", "|---" * (len(evaluated) + 1) + "|"]
    for name in _figures(results, "probe"):
        cells = []
        for who in evaluated:
            bounds = results[who].get("intervals", {}).get(name)
            cells.append(f"{results[who][name]:.4f}" + (f" [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    rows = f"{results['rows']:,} held-out rows of {results['samples']} samples; in brackets 95 % bootstrap intervals."
    return "\n".join([*lines, "", rows])


def _by_offset(offsets: list[dict[str, Any]]) -> str:
    """Of probes of later steps: each probe's figures."""
    names = list(offsets[0]["probe"])
    lines = ["| k | " + " | ".join(names) + " | rows |", "|---" * (len(names) + 2) + "|"]
    for offset in offsets:
        cells = [f"{cell['value']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}]" for cell in offset["probe"].values()]
        lines.append(f"| {offset['k']} | " + " | ".join(cells) + f" | {offset['rows']:,} |")
    return "\n".join([*lines, "", "In brackets 95 % bootstrap intervals over samples."])


def write_card(folder: Path, text: str) -> None:
    """Put the card there, unless a README of somebody else stands in its place."""
    file = folder / NAME
    if not file.exists() or f"library_name: {LIBRARY}" in file.read_text():
        write_bytes(file, text.encode())
