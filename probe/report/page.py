"""The report's page: results, explorer and traces in one self-contained HTML file."""

import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from extract.errors import UserError
from extract.store import ScoreStore
from extract.utils import remove_temporary_files, say, software, software_text, versions, write_bytes
from probe.report.blobs import blob
from probe.report.by_model import ByModel, by_model
from probe.report.components import without_markup
from probe.report.discovery import Result, Sources, find_sources, rows_so_far, task_name
from probe.report.exhibits import EXHIBITS, Exhibit, Shown, questions_of, shown
from probe.report.explorer import Explorer, explore, load_probes
from probe.report.models import Model, Models, llm_of
from probe.report.provenance import provenance_lines
from probe.results import page_style, page_templates, strict

SCRIPTS = ("inflate", "plots", "permalink", "sample", "grid", "prompt", "changes", "tracks", "explorer", "rag", "page")
"""The page's scripts, in the order of their dependencies."""
TITLE, TITLE_WITHIN = "Dynamic retrieval heads: report", 2000
"""Title of the page in its template, and the first bytes of a file among which it is."""
STORE_COMMAND = "lightning predict -c configs/extract/niah.yaml --store STORE"


def write_report(
    runs: Sequence[str | Path],
    output: str | Path = "report.html",
    samples: int = Explorer.samples,
    questions: int = 12,
    static_top: int = Explorer.static_top,
    predicted_top: int = Explorer.predicted_top,
    threshold: float = Explorer.threshold,
) -> Path:
    """Write one self-contained HTML file of the results, score stores and probes in some folders.

    Args:
        runs: Folders of runs, score stores and checkpoints, or folders above them.
        output: The file.
        samples: Most samples of each store in the explorer.
        questions: Most questions of each RAG run with their traces.
        static_top: Size of the explorer's static set.
        predicted_top: Heads that count as predicted by a regressor at a step.
        threshold: Reasoning score from which a head is dynamic in the explorer.

    Returns:
        The file.

    Raises:
        UserError: an output that exists and is no report, a folder that does not exist, or a setting out of range.
            Damaged and unfinished inputs are left out, with a line to stderr.

    """
    settings = Explorer(samples, static_top, predicted_top, threshold).checked()
    file = Path(output)
    _refuse_other_file(file)
    found = find_sources(runs)
    file.parent.mkdir(parents=True, exist_ok=True)
    options = {"output": output, "questions": questions, **asdict(settings)}
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = shlex.join(["lightning", "report", *map(str, runs), *flags])
    page = _render(found, settings, questions, command)
    for line in found.skipped:
        say(line, sys.stderr)
    remove_temporary_files(file.parent)
    write_bytes(file, page.encode(), follow=True)
    return file


def _refuse_other_file(output: Path) -> None:
    """Refuse to replace what is no page of this command."""
    if output.is_file() and output.stat().st_size:
        with output.open("rb") as file:
            if f"<title>{TITLE}</title>".encode() not in file.read(TITLE_WITHIN):
                raise UserError(f"{output} exists and is no report of this software; choose another --output")


def _render(found: Sources, explorer: Explorer, questions: int, command: str) -> str:
    blobs: dict[str, str] = {}
    opened = [store for path in found.stores if (store := _opened(path, found))]
    viewable = [result for result in found.results if _is_viewable(result, found.skipped)]
    models = Models(llm_of(record) for record in (*(one.record for one in viewable), *(s.manifest for s in opened)))
    stores = _stores(opened, models, found, explorer, blobs)
    exhibits = [(exhibit, shown(exhibit, viewable, models)) for exhibit in EXHIBITS]
    folders = [run.result.folder for _, results in exhibits for run in results]
    traces = [one for folder in folders for one in _questions(folder, questions, found.skipped)]
    if traces:
        blobs["rag"] = blob(json.dumps(strict(traces), ensure_ascii=False, allow_nan=False).encode())
    shown_plots = [plot for _, results in exhibits for one in results for plot in one.view.plots]
    plots = [{**asdict(plot), "spec": without_markup(plot.spec)} for plot in shown_plots]
    if plots:
        blobs["plots"] = blob(json.dumps(strict(plots), ensure_ascii=False, allow_nan=False).encode())
        blobs["plotly"] = blob(_plotly().encode())
    return (
        page_templates("probe.report")
        .get_template("report.html.j2")
        .render(
            exhibits=_by_model(exhibits),
            several_models=models.several,
            unfinished=found.unfinished,
            missing=[exhibit for exhibit, results in exhibits if not results],
            provenance=provenance_lines,
            stores=stores,
            store_command=STORE_COMMAND,
            traces=len(traces),
            blobs=blobs,
            style=Markup(page_style() + _asset("report.css")),
            script=Markup("\n".join(_asset(f"{name}.js") for name in SCRIPTS)),
            models=sorted({one.model.shape for _, results in exhibits for one in results if one.model.shape}),
            generated=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            command=command,
            versions=versions(),
            software=software_text(software()),
        )
    )


def _is_viewable(result: Result, skipped: list[str]) -> bool:
    """Whether a result has what its exhibit shows; one that has not is reported, since any field may be missing."""
    try:
        for exhibit in EXHIBITS:
            if exhibit.takes(result.record):
                provenance_lines(Shown(result, exhibit.view(result.record), 0, Model(0, "")))
    except Exception as error:
        skipped.append(f"{result.path} is left out: its record is incomplete ({type(error).__name__}: {error})")
        return False
    return True


def _questions(folder: Path, count: int, skipped: list[str]) -> list[dict[str, Any]]:
    """Questions of a run of masked RAG; of damaged traces none."""
    try:
        return questions_of(folder, count)
    except (UserError, OSError) as error:
        skipped.append(f"{folder}: its traces are left out: {error}")
        return []


def _opened(path: Path, found: Sources) -> ScoreStore | None:
    """A score store; none where it is unfinished or damaged."""
    try:
        return ScoreStore(path)
    except UserError as error:
        so_far = rows_so_far(path)
        found.unfinished += [f"{error}{so_far}"] if so_far else []
        found.skipped.append(f"{path} is left out: {error}{so_far}")
        return None


def _stores(
    opened: list[ScoreStore], models: Models, found: Sources, explorer: Explorer, blobs: dict[str, str]
) -> list[dict[str, Any]]:
    """Descriptions of the stores for the explorer, NIAH first; their samples' data are added to the blobs."""
    probes = load_probes(found.probes, found.skipped)
    descriptions: list[dict[str, Any]] = []
    for store in sorted(opened, key=lambda store: store.manifest["task"].get("class") != "NIAH"):
        try:
            description, packed = explore(store, probes, explorer)
        except UserError as error:
            found.skipped.append(f"{store.path} is left out: {error}")
            continue
        number = len(descriptions)
        of = {"model": models.of(llm_of(store.manifest)).label, "task": task_name(store.manifest["task"])}
        descriptions.append({**description, **of, "samples": [one.summary for one in packed]})
        blobs |= {f"sample-{number}-{index}": one.data for index, one in enumerate(packed)}
    return descriptions


def _by_model(exhibits: list[tuple[Exhibit, list[Shown]]]) -> list[ByModel]:
    """The exhibits that have results, with the index of the first plot of each result."""
    found, plots = [], 0
    for exhibit, results in exhibits:
        if results:
            found.append(by_model(exhibit, results, plots))
        plots += sum(len(one.view.plots) for one in results)
    return found


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _asset(name: str) -> str:
    return (resources.files("probe.report") / "assets" / name).read_text(encoding="utf-8")
