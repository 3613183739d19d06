"""What a measurement leaves behind: a table on screen, JSON, CSV, figures as PNG and PDF and in TensorBoard."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from extract.errors import UserError
from extract.utils import command, versions, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SCHEMA = 1
"""Version of the layout of results.json."""


@runtime_checkable
class Measurement(Protocol):
    """A LightningModule that measures in `test` and can say what it found.

    Attributes:
        experiment: Name of the experiment, as results.json records it.
        results: Every number, in plain values.

    """

    experiment: str
    results: dict[str, Any]

    def records(self) -> list[dict[str, Any]]:
        """The same numbers as flat rows, all with the same keys."""

    def table(self) -> Table:
        """What a user wants to see first."""

    def plots(self) -> "dict[str, Figure]":
        """Figures by name."""


class Artifacts(Callback):
    """After `test`, print the table and write `results.json`, `results.csv` and every figure.

    Args:
        folder: Where they go; by default the run's log folder.

    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that measures nothing before the work begins."""
        del trainer, stage
        if not isinstance(pl_module, Measurement):
            raise UserError(f"the Artifacts callback reports on measurements, not on {type(pl_module).__name__}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rank 0 reports."""
        folder = Path(self.folder or trainer.log_dir or trainer.default_root_dir)  # log_dir: asked by every process
        if not trainer.is_global_zero:
            return
        found: Any = pl_module
        leave(folder, found.experiment, found.results, found.records(), found.plots(), trainer)
        console = Console()
        console.print(found.table())
        console.print(f"tables and figures written to {folder}", highlight=False)


def leave(
    folder: Path,
    experiment: str,
    results: dict[str, Any],
    records: list[dict[str, Any]],
    plots: "dict[str, Figure]",
    trainer: Trainer,
) -> None:
    """Write results as JSON and CSV, and every figure, into a folder and to TensorBoard."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"experiment": experiment, "schema": SCHEMA, "command": command(), "versions": versions(), **results}
    write_bytes(folder / "results.json", (json.dumps(record, indent=2) + "\n").encode())
    write_bytes(folder / "results.csv", _csv(records).encode())
    writer: Any = getattr(trainer.logger, "experiment", None)
    for name, figure in plots.items():
        for suffix in ("png", "pdf"):
            image = io.BytesIO()
            figure.savefig(image, format=suffix, dpi=150)
            write_bytes(folder / f"{name}.{suffix}", image.getvalue())
        if hasattr(writer, "add_figure"):
            writer.add_figure(name, figure)


def _csv(records: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
