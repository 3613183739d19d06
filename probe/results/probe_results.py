"""Results of a test run: one table in the terminal, one JSON file beside the logs."""

import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from extract.errors import UserError
from extract.utils import command, versions, write_bytes
from probe.results.artifacts import SCHEMA

PAPER = {
    "copy_paste": {"f1": 0.8349, "precision": 0.8344, "recall": 0.8353, "auprc": 0.9173},
    "reasoning": {"mse": 0.0023, "mae": 0.0177, "r2": 0.8120},
}
"""Rows of Tables 2 and 3 for llama3.1-8b."""


class Results(Callback):
    """After `test`, print probe, static baseline and the paper's row, and write `results.json`.

    Args:
        file: Where the JSON goes; by default into the run's log folder.

    """

    def __init__(self, file: str | None = None) -> None:
        self.file = file

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rank 0 reports."""
        results: dict[str, Any] | None = getattr(pl_module, "results", None)
        if results is None:
            raise UserError(f"the Results callback reports on probes, not on {type(pl_module).__name__}")
        log_dir = trainer.log_dir  # a question to every process
        if not trainer.is_global_zero:
            return
        trained: dict[str, Any] = getattr(pl_module, "training_record", {})
        rows: Any = trainer.datamodule  # type: ignore[attr-defined]
        record = {
            "experiment": pl_module.experiment,
            "schema": SCHEMA,
            "command": command(),
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "llm": trained["llm"],
            "store": rows.store.fingerprint,
            "test_store": rows.test_store.fingerprint,
            "split": rows.split_record(),
            "versions": versions(),
            **results,
        }
        folder = Path(self.file).parent if self.file else Path(log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = Path(self.file) if self.file else folder / "results.json"
        write_bytes(path, (json.dumps(record, indent=2) + "\n").encode())
        console = Console()
        console.print(table(results, pl_module, rows))
        console.print(f"written to {path}", highlight=False)


BASELINES = ("static", "ridge")


def table(results: dict[str, Any], probe: Any, rows: Any) -> Table:
    """The figures of probe and baselines with their 95 % intervals, and the paper's."""
    held_out = f"{results['rows']:,} held-out rows of {results['samples']} samples"
    split, evaluated = rows.split, ["probe", *(name for name in BASELINES if name in results)]
    notes = [f"split by {split.by}, seed {split.seed}, offset {rows.offset}", "[95 % bootstrap interval over samples]"]
    if "threshold" in results["probe"]:
        notes.append("threshold: best F1 on the validation split")
    if "top" in results:
        notes.append(f"the last three rank the heads of a step: overlap and NDCG of its top {results['top']}, Spearman")
    if results.get("unscored_rows"):
        notes.append(f"{results['unscored_rows']} rows have no score and are left out")
    where = rows.test_path or rows.store_path
    out = Table(title=f"{type(probe).__name__} on {where}: {held_out}", caption="; ".join(notes))
    for header in (
        "",
        *(f"{name} baseline" if name in BASELINES else name for name in evaluated),
        "paper, llama3.1-8b",
    ):
        out.add_column(header, justify="right" if header else "left")
    paper = PAPER[probe.target]
    for name in (name for name in results["probe"] if name != "intervals"):
        published = paper.get(name, paper.get("r2") if name.startswith("r2") else None)
        cells = [_cell(results[who], name) for who in evaluated]
        out.add_row(name, *cells, "" if published is None else f"{published:.4f}")
    return out


def _cell(figures: dict[str, Any], name: str) -> str:
    bounds = figures.get("intervals", {}).get(name)
    value = f"{figures[name]:.4f}"
    if not bounds:
        return value
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in bounds)
    return f"{value} [{low}, {high}]"
