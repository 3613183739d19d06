"""Probes of retrieval heads, and the command line that runs every stage.

What a notebook needs: `load` restores a trained probe, `answer` lets the LLM answer with heads silenced, `write_report`
makes the page of all results, `save_pretrained` and `push_to_hub` share a probe. The classes are for configs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.ablation import Ablation
    from probe.artifacts import Artifacts
    from probe.checkpoint import load, push_to_hub, save_pretrained
    from probe.classifier import ProbeClassifier
    from probe.correlation import Correlation
    from probe.dynamism import Dynamism
    from probe.offsets import OffsetProbes
    from probe.regressor import ProbeRegressor
    from probe.report import write_report
    from probe.results import Results
    from probe.silencing import Answer, answer

_HOMES = {
    "Ablation": "probe.ablation",
    "Answer": "probe.silencing",
    "Artifacts": "probe.artifacts",
    "Correlation": "probe.correlation",
    "Dynamism": "probe.dynamism",
    "OffsetProbes": "probe.offsets",
    "ProbeClassifier": "probe.classifier",
    "ProbeRegressor": "probe.regressor",
    "Results": "probe.results",
    "answer": "probe.silencing",
    "load": "probe.checkpoint",
    "push_to_hub": "probe.checkpoint",
    "save_pretrained": "probe.checkpoint",
    "write_report": "probe.report",
}

__all__ = [
    "Ablation",
    "Answer",
    "Artifacts",
    "Correlation",
    "Dynamism",
    "OffsetProbes",
    "ProbeClassifier",
    "ProbeRegressor",
    "Results",
    "answer",
    "load",
    "push_to_hub",
    "save_pretrained",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `lightning --help` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'probe' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
