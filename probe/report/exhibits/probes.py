"""Tables 2 and 3: what a probe tells of the heads, beside its baselines and the paper."""

from typing import Any

from probe.report import EMPTY, Cell, TableView, View, measured, spread
from probe.results import BASELINES

PAPER = {
    "llama3.1-8b": (0.8349, 0.8344, 0.8353, 0.9173, 0.0023, 0.0177, 0.8120),
    "llama3.2-3b": (0.8456, 0.8564, 0.8351, 0.9289, 0.0036, 0.0247, 0.8015),
    "qwen3-8b": (0.8566, 0.8780, 0.8362, 0.9339, 0.0050, 0.0255, 0.7200),
    "llama2-13b": (0.8336, 0.8455, 0.8220, 0.9183, 0.0009, 0.0121, 0.7669),
    "phi4-mini": (0.8038, 0.8219, 0.7865, 0.8862, 0.0014, 0.0109, 0.7333),
}
"""Tables 2 and 3 for five models."""
COLUMNS = ("f1", "precision", "recall", "auprc", "mse", "mae", "r2")
NAMES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "auprc": "AUPRC",
    "mse": "MSE",
    "mae": "MAE",
    "r2_variance_weighted": "R², weighted by each head's variance",
    "r2_flattened": "R², all pairs as one variable",
    "top_overlap": "true top heads of a step among the predicted",
    "ndcg": "NDCG of a step's top heads",
    "rank_correlation": "Spearman over the heads of a step",
}


def takes_classifier(record: dict[str, Any]) -> bool:
    """Results of `ProbeClassifier`."""
    return bool(record["experiment"] == "classifier")


def takes_regressor(record: dict[str, Any]) -> bool:
    """Results of `ProbeRegressor`."""
    return bool(record["experiment"] == "regressor")


def view(record: dict[str, Any]) -> View:
    """The probe beside its baselines, and the paper's row."""
    evaluated = ["probe", *(name for name in BASELINES if name in record)]
    rows = []
    for name, label in NAMES.items():
        if name not in record["probe"]:
            continue
        published = _published(name)
        paper = [Cell(f"{published[0]:.4f}"), spread(published)] if published else [EMPTY, EMPTY]
        rows.append((label, [*(_cell(record[who], name, who == "probe") for who in evaluated), *paper]))
    split = record["split"]
    note = (
        f"{record['rows']:,} held-out rows of {record['samples']} samples, split by {split['by']} (seed "
        f"{split['seed']}); in brackets the 95 % bootstrap interval over samples. static: each head's training mean"
        + ("; ridge: a linear probe." if "ridge" in record else "; thresholds: best F1 on the validation split.")
    )
    columns = ["probe", *(f"{name} baseline" for name in evaluated[1:]), "paper, llama3.1-8b", "paper, five models"]
    return View([TableView(columns, rows, note)])


def _published(name: str) -> list[float]:
    column = "r2" if name.startswith("r2") else name
    return [row[COLUMNS.index(column)] for row in PAPER.values()] if column in COLUMNS else []


def _cell(figures: dict[str, Any], name: str, strong: bool) -> Cell:
    low, high = figures.get("intervals", {}).get(name, (None, None))
    return measured({"value": figures[name], "low": low, "high": high}, digits=4, strong=strong)
