"""Artifacts of an experiment: results.json, results.csv, plots as PNG and PDF and in TensorBoard, a table on screen."""

import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from rich.console import RenderableType

from extract.errors import UserError
from extract.utils import (
    DataConsole,
    command,
    hashed_json,
    remove_temporary_files,
    say,
    software,
    user_path,
    versions,
    write_bytes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SCHEMA = 2
"""Version of the layout of results.json."""
DOTS = 150
"""Pixels an inch of plots."""


@runtime_checkable
class Experiment(Protocol):
    """What an experiment offers after its run: a LightningModule after `test`, or the outcomes of masked RAG."""

    @property
    def experiment(self) -> str:
        """Its name: `dynamism`, `correlation`, `ablation`, `attribution`, `grounding`, `rag` or another."""

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
        if not isinstance(pl_module, Experiment):
            raise UserError(f"the Artifacts callback writes results of experiments; {type(pl_module).__name__} is none")
        if stage == "test":
            self.refuse_other_files(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the module's results."""
        experiment: Any = pl_module
        self.write(experiment, trainer)

    def refuse_other_files(self, trainer: Trainer) -> None:
        """Refuse a folder whose files of the names of results are none of this software; called on every process.

        Raises:
            UserError: naming the file.

        """
        folder = self.path(trainer)
        names = [name for name in ("results.json", "results.csv", "traces.jsonl") if (folder / name).exists()]
        if trainer.is_global_zero and names and not holds_results(folder):
            raise UserError(f"{folder / names[0]} was not written by this software; choose another folder for results")

    def path(self, trainer: Trainer) -> Path:
        """The folder of this run. All processes must ask: Lightning broadcasts the log folder."""
        return user_path(self.folder or trainer.log_dir or trainer.default_root_dir)

    def write(self, experiment: Experiment, trainer: Trainer) -> None:
        """Print the table and write the files, on rank 0; called on every process."""
        folder = self.path(trainer)
        if not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(folder)
        head = {"experiment": experiment.experiment, "schema": SCHEMA, "command": command(), "versions": versions()}
        head["software"] = software()
        record = {**head, **experiment.results}
        owned = holds_results(folder)
        write_bytes(folder / "results.json", hashed_json(strict(record), indent=2, allow_nan=False))
        write_bytes(folder / "results.csv", _csv(experiment.records()).encode())
        _save_plots(experiment.plots(), folder, owned, getattr(trainer.logger, "experiment", None))
        DataConsole().print(experiment.table())
        say(f"results written to {folder}")


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


def holds_results(folder: Path) -> bool:
    """Whether an experiment left its results in a folder."""
    try:
        record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"command", "versions"} <= record.keys()


def _save_plots(plots: "dict[str, Figure]", folder: Path, owned: bool, writer: Any) -> None:
    """Each plot as PNG and PDF, and its pixels in TensorBoard where that is the logger.

    Files of these names in a folder that held no results (`owned`) are the user's: they are left.
    """
    for name, plot in plots.items():
        pixels, images = _drawn(plot)
        for suffix, image in images.items():
            file = folder / f"{name}.{suffix}"
            if file.exists() and not owned:
                rank_zero_info(f"{file} was not written by this software: it is left, and this plot is not saved")
            else:
                write_bytes(file, image)
        if hasattr(writer, "add_image"):
            writer.add_image(name, pixels, dataformats="HWC")


def _drawn(plot: "Figure") -> tuple[NDArray[np.uint8], dict[str, bytes]]:
    """Pixels of a plot, and it as a file of each form: laid out once, where `savefig` would draw each form twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.image import imsave

    png, pdf = io.BytesIO(), io.BytesIO()
    plot.set_dpi(DOTS)
    canvas = FigureCanvasAgg(plot)
    canvas.draw()  # type: ignore[no-untyped-call]
    plot.set_layout_engine("none")  # the PDF has the places of the PNG
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    imsave(png, pixels, format="png", dpi=DOTS)
    FigureCanvasPdf(plot).print_pdf(pdf)  # type: ignore[no-untyped-call]
    return pixels, {"png": png.getvalue(), "pdf": pdf.getvalue()}


def _csv(records: list[dict[str, Any]]) -> str:
    if not records:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
