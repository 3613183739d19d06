"""The page: everything found, put into one HTML file by the template and the scripts beside it."""

import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from extract.store import ScoreStore
from extract.utils import versions, write_bytes
from probe.report.blobs import blob
from probe.report.discovery import Sources, find_sources
from probe.report.exhibits import EXHIBITS, Exhibit, Shown, questions_of, shown
from probe.report.explorer import explore, load_probes

SCRIPTS = ("inflate", "figures", "place", "sample", "grid", "prompt", "strip", "tracks", "explorer", "rag", "page")
"""The page's scripts, in the order in which they need each other."""
STORE_COMMAND = "lightning predict -c configs/extract/niah.yaml --store STORE"


def write_report(
    runs: Sequence[str | Path], output: str | Path = "report.html", samples: int = 8, questions: int = 12
) -> Path:
    """Write one self-contained HTML file about everything in some folders.

    Args:
        runs: Folders of runs, score stores and checkpoints, or folders above them.
        output: The file.
        samples: Samples of each store to embed in the explorer, at most.
        questions: Questions of each RAG run to embed with their traces, at most.

    Raises:
        UserError: a folder that does not exist, or something damaged in one.

    """
    found = find_sources(runs)
    for line in found.skipped:
        print(line, file=sys.stderr)
    file = Path(output)
    file.parent.mkdir(parents=True, exist_ok=True)
    options = ["--output", str(output), "--samples", str(samples), "--questions", str(questions)]
    command = shlex.join(["lightning", "report", *map(str, runs), *options])
    write_bytes(file, _render(found, samples, questions, command).encode())
    return file


def _render(found: Sources, samples: int, questions: int, command: str) -> str:
    blobs: dict[str, str] = {}
    stores = _stores(found, samples, blobs)
    exhibits = [(exhibit, shown(exhibit, found.results)) for exhibit in EXHIBITS]
    traces = [one for _, results in exhibits for run in results for one in questions_of(run.result.folder, questions)]
    if traces:
        blobs["rag"] = blob(json.dumps(traces, ensure_ascii=False).encode())
    figures = [asdict(figure) for _, results in exhibits for one in results for figure in one.view.figures]
    if figures:
        blobs["figures"] = blob(json.dumps(figures, ensure_ascii=False).encode())
        blobs["plotly"] = blob(_plotly().encode())
    numbered = _numbered(exhibits)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            exhibits=[(exhibit, results) for exhibit, results in numbered if results],
            missing=[exhibit for exhibit, results in exhibits if not results],
            facts=_facts,
            stores=stores,
            store_command=STORE_COMMAND,
            traces=len(traces),
            blobs=blobs,
            style=Markup(_asset("report.css")),
            script=Markup("\n".join(_asset(f"{name}.js") for name in SCRIPTS)),
            models=sorted({name for _, results in exhibits for one in results if (name := _model(one.result.record))}),
            made=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            command=command,
            versions=versions(),
        )
    )


def _stores(found: Sources, samples: int, blobs: dict[str, str]) -> list[dict[str, Any]]:
    """What the explorer knows of each store; the samples' data go into blobs."""
    probes = load_probes(found.probes)
    stores = []
    opened = sorted(
        (ScoreStore(path) for path in found.stores), key=lambda store: store.manifest["task"]["class"] != "NIAH"
    )
    for number, store in enumerate(opened):
        about, packed = explore(store, probes, samples)
        stores.append({**about, "samples": [one.line for one in packed]})
        blobs |= {f"sample-{number}-{place}": one.data for place, one in enumerate(packed)}
    return stores


def _numbered(exhibits: list[tuple[Exhibit, list[Shown]]]) -> list[tuple[Exhibit, list[tuple[Shown, int]]]]:
    """Each result with the number of its first figure."""
    numbered, count = [], 0
    for exhibit, results in exhibits:
        placed = []
        for one in results:
            placed.append((one, count))
            count += len(one.view.figures)
        numbered.append((exhibit, placed))
    return numbered


def _model(record: dict[str, Any]) -> str:
    llm = record.get("llm")
    return f"{llm['name']} ({llm['layers']} layers × {llm['heads']} heads)" if isinstance(llm, dict) else ""


def _facts(one: Shown) -> list[tuple[str, str]]:
    """Where a result comes from, line by line; what a record does not hold is left out."""
    record = one.result.record
    trained = record.get("probe") or {}  # of masked RAG: what its probe was trained on
    llm, store = record.get("llm"), record.get("store") or trained.get("store")
    about_store = store if isinstance(store, dict) else {"fingerprint": store}
    split = record.get("split") or about_store.get("split") or trained.get("split")
    lines = [
        ("LLM", f"{_model(record)}, {llm['dtype']}, weights {llm['weights'][:19]}" if isinstance(llm, dict) else ""),
        ("store", str(about_store.get("fingerprint") or "")),
        ("test store", str(record["test_store"]) if record.get("test_store", store) != store else ""),
        ("n", _count(record)),
        ("seed", str(record.get("seed", split["seed"] if split else ""))),
        ("split", f"by {split['by']}, {split['sizes']}, seed {split['seed']}" if split else ""),
        ("checkpoint", str(record.get("checkpoint") or "")),
        ("file", str(one.result.path)),
        ("written", datetime.datetime.fromtimestamp(one.result.time).strftime("%Y-%m-%d %H:%M")),
        ("older runs", f"{one.older} of the same command, not shown" if one.older else ""),
    ]
    return [(name, text) for name, text in lines if text]


def _count(record: dict[str, Any]) -> str:
    """Numbers of what was measured."""
    units = ("rows", "steps", "samples", "prompts", "questions")
    counts = {name: record[name] for name in units if isinstance(record.get(name), int | dict)}
    if isinstance(counts.get("prompts"), dict):  # a store's record of its prompts
        del counts["prompts"]
    shown_counts = {
        name: ", ".join(f"{count:,} {part}" for part, count in value.items()) if isinstance(value, dict) else value
        for name, value in counts.items()
    }
    return "; ".join(
        f"{value:,} {name}" if isinstance(value, int) else f"{name}: {value}" for name, value in shown_counts.items()
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _asset(name: str) -> str:
    return (resources.files("probe.report") / "assets" / name).read_text()


def _environment() -> Environment:
    """Autoescaping is on for every template: texts of datasets and models are shown, never run."""
    return Environment(
        loader=PackageLoader("probe.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
