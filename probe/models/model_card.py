"""Model cards of trained modules: intended use, training data and evaluation, beside a checkpoint or an export."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.metrics import Estimate
from probe.results import BASELINES

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

LIBRARY = "dynamic-retrieval-heads"
PAPER = "*Retrieval Heads are Dynamic*, arXiv 2602.11162"
PREDICTS = {
    "copy_paste": "which attention heads copy the generated token from the context (copy-paste score, Eq. 1)",
    "reasoning": "the share of each attention head's attention that falls on the evidence (reasoning score, Eq. 2)",
    "contribution": "what the evidence adds through each attention head to the generated token's logit",
}


def probe_card(
    kind: str,
    record: Mapping[str, Any],
    command: str,
    results: Mapping[str, Any] | None = None,
    file: str = "best.ckpt",
) -> str:
    """README.md of a probe.

    Args:
        kind: Name of its class.
        record: Of its training data (`TrainedModule.training_record`).
        command: The command that computed the metrics, or trained the probe where there are none.
        results: Those of `lightning test`, with `probe` and its baselines; None before a test.
        file: What `probe.load` takes.

    """
    llm = record["llm"]
    return f"""---
{card_metadata(kind, record, _evaluated(record, results), "probe")}
---

# {kind} for {llm["name"]}

A probe of {llm["name"]}: from the final hidden state of a decoding step it predicts
{PREDICTS[record["target"]]}.
It is valid for this LLM only; `probe.load(…, llm=…)` and `lightning test` refuse another one.

{_usage(kind, llm, file)}

## Evaluation

{_evaluation(results)}

{training_table(record, f"score store `{record['store']}`, {record['target']}", command, PAPER)}
"""


def training_table(record: Mapping[str, Any], data: str, command: str, paper: str) -> str:
    """The card's section on what a module was trained on.

    Args:
        record: Of its training data.
        data: Their store.
        command: The command that computed the metrics, or trained the module.
        paper: The one that it is of.

    """
    llm, split = record["llm"], record["split"]
    return f"""## Training

| | |
|---|---|
| LLM | {llm["name"]}, {llm["weights"]}, {llm["layers"]} layers × {llm["heads"]} heads, {llm["dtype"]} |
| data | {data} |
| split | by {split["by"]}, {split["sizes"]}, seed {split["seed"]} |
| command | `{command}` |
| paper | {paper} |
| licence | Apache-2.0, as the software; the LLM keeps its own |"""


def _usage(kind: str, llm: Mapping[str, Any], file: str) -> str:
    if kind == "OffsetProbes":
        return f"One probe for each later step; `lightning test` with the training configs and `--ckpt_path {file}`."
    return f"""```python
import probe

trained = probe.load("{file}")
scores = trained.predict_scores(hidden)  # [rows, {llm["hidden_size"]}] -> [rows, {llm["layers"] * llm["heads"]} heads]
```"""


def _evaluated(record: Mapping[str, Any], results: Mapping[str, Any] | None) -> "list[EvalResult]":
    """The probe's metrics in the hub's format."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="other",
            task_name="predict the retrieval scores of attention heads",
            dataset_type=LIBRARY,
            dataset_name=f"score store {record['store'][:12]}",
            metric_type=name,
            metric_value=round(estimate.value, 4),
        )
        for name, estimate in _estimates(results, "probe").items()
    ]


def card_metadata(kind: str, record: Mapping[str, Any], evaluated: "list[EvalResult]", tag: str) -> str:
    """A card's front matter.

    Args:
        kind: Name of the module's class.
        record: Of its training data.
        evaluated: Its metrics in the hub's format.
        tag: What it is, beside the common tags.

    """
    from huggingface_hub import ModelCardData

    base = record["llm"]["name"]
    data = ModelCardData(
        license="apache-2.0",
        library_name=LIBRARY,
        tags=["attention", "retrieval-heads", "interpretability", tag],
        base_model=None if ":" in base or Path(base).exists() else base,  # the hub accepts only ids of its models
        model_name=kind if evaluated else None,
        eval_results=evaluated or None,
    )
    return str(data.to_yaml())


def _estimates(results: Mapping[str, Any] | None, predictor: str) -> dict[str, Estimate]:
    """Metrics of the probe or a baseline by name; none before a test."""
    metrics = (results or {}).get(predictor, {})
    intervals = metrics.get("intervals", {})
    return {
        name: Estimate(value, *intervals.get(name, ()))
        for name, value in metrics.items()
        if isinstance(value, float) and name != "threshold"
    }


def _evaluation(results: Mapping[str, Any] | None) -> str:
    """A table of probe and baselines with their intervals."""
    if results and "offsets" in results:
        return _evaluation_by_offset(results["offsets"])
    evaluated = {who: found for who in ("probe", *BASELINES) if (found := _estimates(results, who))}
    if not evaluated or results is None:
        return "Not evaluated yet: `lightning test … --ckpt_path …` fills this in."
    lines = ["| | " + " | ".join(evaluated) + " |", "|---" * (len(evaluated) + 1) + "|"]
    for name in evaluated["probe"]:
        cells = [estimates[name].text(digits=4) for estimates in evaluated.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    rows = f"{results['rows']:,} held-out rows of {results['samples']} samples; in brackets 95 % bootstrap intervals."
    notes = [f"{who}: {BASELINES[who]}." for who in evaluated if who in BASELINES]
    return "\n".join([*lines, "", rows, *notes])


def _evaluation_by_offset(offsets: list[dict[str, Any]]) -> str:
    """A table of the metrics of the probe of each later step."""
    names = list(offsets[0]["probe"])
    lines = ["| k | " + " | ".join(names) + " | rows |", "|---" * (len(names) + 2) + "|"]
    for offset in offsets:
        cells = [Estimate.of(cell).text(digits=4) for cell in offset["probe"].values()]
        lines.append(f"| {offset['k']} | " + " | ".join(cells) + f" | {offset['rows']:,} |")
    return "\n".join([*lines, "", "In brackets 95 % bootstrap intervals over samples."])
