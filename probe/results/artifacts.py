"""Artifacts of an experiment: results.json, results.csv, plots as PNG and PDF and in TensorBoard, a table on screen."""

import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lightning import Callback, LightningModule, Trainer
from rich.console import Console, RenderableType

from extract.errors import UserError
from extract.utils import command, software, user_path, versions, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SCHEMA = 2
"""Version of the layout of results.json."""


@runtime_checkable
class Experiment(Protocol):
    """What an experiment offers after its run: a LightningModule after `test`, or the outcomes of masked RAG."""

    @property
    def experiment(self) -> str:
        """Its name: `dynamism`, `correlation`, `ablation`, `offset_probes`, `classifier`, `regressor` or `rag`."""

    @property
    def results(self) -> dict[str, Any]:
        """Metrics, settings and provenance in plain values, for results.json."""

    def records(self) -> list[dict[str, Any]]:
        """The same metrics as flat rows with the same keys, for results.csv."""

    def table(self) -> RenderableType:
        """The main metrics, for the terminal."""

    def plots(self) -> "dict[str, Figure]":
        """Plots by file name."""


class Artifacts(Callback):
    """After `test`, print the experiment's table and write `results.json`, `results.csv` and its plots.

    Args:
        folder: Where they go; by default the run's log folder.

    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without results before the run begins."""
        del trainer, stage
        if not isinstance(pl_module, Experiment):
            raise UserError(f"the Artifacts callback writes results of experiments; {type(pl_module).__name__} is none")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the module's results."""
        experiment: Any = pl_module
        self.write(experiment, trainer)

    def path(self, trainer: Trainer) -> Path:
        """The folder of this run. All processes must ask: Lightning broadcasts the log folder."""
        return user_path(self.folder or trainer.log_dir or trainer.default_root_dir)

    def write(self, experiment: Experiment, trainer: Trainer) -> None:
        """Print the table and write the files, on rank 0; called on every process."""
        folder = self.path(trainer)
        if not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        head = {"experiment": experiment.experiment, "schema": SCHEMA, "command": command(), "versions": versions()}
        head["software"] = software()
        record = {**head, **experiment.results}
        write_bytes(folder / "results.json", (json.dumps(strict(record), indent=2, allow_nan=False) + "\n").encode())
        write_bytes(folder / "results.csv", _csv(experiment.records()).encode())
        _save_plots(experiment.plots(), folder, getattr(trainer.logger, "experiment", None))
        console = Console()
        console.print(experiment.table())
        console.print(f"results written to {folder}", highlight=False)


def strict(value: Any) -> Any:
    """Plain values as every JSON reader takes them: NaN and infinities, which JSON lacks, become null.

    >>> strict({"low": float("nan"), "bounds": (0.5, float("inf"))})
    {'low': None, 'bounds': [0.5, None]}

    """
    if isinstance(value, dict):
        return {name: strict(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _save_plots(plots: "dict[str, Figure]", folder: Path, writer: Any) -> None:
    """Each plot as PNG and PDF, and in TensorBoard where that is the logger."""
    for name, plot in plots.items():
        for suffix in ("png", "pdf"):
            image = io.BytesIO()
            plot.savefig(image, format=suffix, dpi=150)
            write_bytes(folder / f"{name}.{suffix}", image.getvalue())
        if hasattr(writer, "add_figure"):
            writer.add_figure(name, plot)


def _csv(records: list[dict[str, Any]]) -> str:
    if not records:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
