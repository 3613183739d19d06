"""Probes of retrieval heads, and the command line that runs every stage.

`load(path)` restores a trained probe; `save_pretrained(probe, folder)` writes it to share.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.ablation import Ablation
    from probe.artifacts import Artifacts
    from probe.checkpoint import load, save_pretrained
    from probe.classifier import ProbeClassifier
    from probe.correlation import Correlation
    from probe.dynamism import Dynamism
    from probe.offsets import OffsetProbes
    from probe.regressor import ProbeRegressor
    from probe.results import Results

_HOMES = {
    "Ablation": "probe.ablation",
    "Artifacts": "probe.artifacts",
    "Correlation": "probe.correlation",
    "Dynamism": "probe.dynamism",
    "OffsetProbes": "probe.offsets",
    "ProbeClassifier": "probe.classifier",
    "ProbeRegressor": "probe.regressor",
    "Results": "probe.results",
    "load": "probe.checkpoint",
    "save_pretrained": "probe.checkpoint",
}

__all__ = [
    "Ablation",
    "Artifacts",
    "Correlation",
    "Dynamism",
    "OffsetProbes",
    "ProbeClassifier",
    "ProbeRegressor",
    "Results",
    "load",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `lightning --help` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'probe' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
