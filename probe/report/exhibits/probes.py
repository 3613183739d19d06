"""Tables 2 and 3: test metrics of a probe, beside its baselines and the paper."""

from typing import Any

from probe.report import EMPTY, Cell, TableView, View, measured, spread
from probe.results import BASELINES, COMPARED, PAPER_MODEL, PROBE_TABLES, published

NAMES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "auprc": "AUPRC",
    "mse": "MSE",
    "mae": "MAE",
    "r2_variance_weighted": "R², weighted by each head's variance",
    "r2_flattened": "R², all pairs as one variable",
    "top_overlap": "overlap of true and predicted top heads of a step",
    "ndcg": "NDCG of the top heads of a step",
    "rank_correlation": "Spearman's ρ over the heads of a step",
}


def view(record: dict[str, Any]) -> View:
    """The probe beside its baselines, and the paper's row."""
    kinds = ["probe", *(name for name in BASELINES if name in record)]
    rows = []
    for metric, label in NAMES.items():
        if metric in record["probe"]:
            cells = [_cell(record[kind], metric, strong=kind == "probe") for kind in kinds]
            rows.append((label, [*cells, *_paper(record["experiment"], metric)]))
    for metric in COMPARED[record["experiment"]] if "differences" in record else ():  # former results have none
        gaps = [measured(record["differences"][kind][metric], digits=4) for kind in kinds[1:]]
        rows.append((f"paired difference in {NAMES[metric]}: probe minus baseline", [EMPTY, *gaps, EMPTY, EMPTY]))
    split = record["split"]
    note = (
        f"{record['rows']:,} held-out rows of {record['samples']} samples, split by {split['by']} (seed "
        f"{split['seed']}); in brackets the 95 % bootstrap interval over samples. "
        + "; ".join(f"{kind}: {BASELINES[kind]}" for kind in kinds[1:])
        + (". Thresholds: highest F1 on the validation split." if "threshold" in record["probe"] else ".")
    )
    columns = ["probe", *(f"{name} baseline" for name in kinds[1:]), f"paper, {PAPER_MODEL}", "paper, five models"]
    return View([TableView(columns, rows, note)])


def _paper(experiment: str, metric: str) -> list[Cell]:
    values = published(PROBE_TABLES[experiment], metric)
    return [Cell(f"{values[PAPER_MODEL]:.4f}"), spread([*values.values()])] if values else [EMPTY, EMPTY]


def _cell(metrics: dict[str, Any], name: str, strong: bool) -> Cell:
    low, high = metrics["intervals"].get(name, (None, None))
    return measured({"value": metrics[name], "low": low, "high": high}, digits=4, strong=strong)
