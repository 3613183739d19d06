"""Model cards of learned head weights."""

from collections.abc import Mapping
from typing import Any

from probe.models import card_metadata, training_table

PAPER = "*Learning to Attribute with Attention* (AT2), Cohen-Wang et al. (2025)"
KINDS = {
    "HeadWeights": "one weight for each attention head",
    "DynamicHeadWeights": "weights of the attention heads that depend on the hidden state",
}


def head_weights_card(kind: str, features: str, record: Mapping[str, Any], command: str, file: str) -> str:
    """README.md of learned head weights.

    Args:
        kind: Name of their class.
        features: What they weight.
        record: Of their training data (`TrainedModule.training_record`).
        command: What trained them.
        file: What `LearnedHeads` takes.

    """
    llm = record["llm"]
    weighted = "attention and contribution" if features == "both" else features
    data = f"ablation effects `{record['store']}`"
    return f"""---
{card_metadata(kind, record, [], "attribution")}
---

# {kind} for {llm["name"]}

Attribution of answers of {llm["name"]} to sources of their context: {KINDS.get(kind, kind)}; the score of a source for
a token is the weighted sum over heads of their {weighted}. Valid for this LLM only; another one is refused.

```python
from extract import LLM
from probe import attribute
from probe.attribution import LearnedHeads

answer = attribute(LLM({llm["name"]!r}), question, documents, method=LearnedHeads("{file}"))
```

## Evaluation

None here: `lightning test -c configs/attribution.yaml -c configs/attribution/learned.yaml` compares them with other
methods on other questions.

{training_table(record, data, command, PAPER)}
"""
