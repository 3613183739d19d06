"""The report of several models: told apart by hashes and precision, compared beside the paper; unfinished stores."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from extract.llm import LLM, LLMIdentity
from probe.report import Models, llm_of, write_report
from probe.report.by_model import comparisons
from probe.report.discovery import find_sources
from probe.report.exhibits import EXHIBITS, shown
from tests.conftest import Run
from tests.helpers.bad_input import resign
from tests.helpers.explorer_store import explorer_store
from tests.helpers.result_records import LLM as TOY
from tests.helpers.result_records import RECORDS
from tests.helpers.stores import make_store

OTHER = {**TOY, "name": "other-0.5B", "weights": "sha256:" + "1" * 64, "layers": 1, "heads": 6}
RUNS: dict[str, Any] = {"toy": TOY, "other": OTHER, "half": {**TOY, "dtype": "bfloat16"}, "unknown": None}


def write(folder: Path, *names: str, value: float | None = None) -> Path:
    """Every experiment's results of some models, whose commands are the same."""
    for name in names:
        for key, record in RECORDS.items():
            changed = {**record, "llm": RUNS[name]} if RUNS[name] else {k: v for k, v in record.items() if k != "llm"}
            if key == "classifier" and value is not None:
                changed["probe"] = {**record["probe"], "f1": value}
            if key == "rag" and not RUNS[name]:
                changed["probe"] = {k: v for k, v in record["probe"].items() if k != "llm"}
            file = folder / name / key / "results.json"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(changed))
    return folder


def page(folder: Path, **settings: Any) -> str:
    written = write_report([folder], folder / "report.html", **settings).read_text()
    return written.split('<script type="application/json"')[0]


def headings(text: str) -> list[str]:
    return [html.unescape(name).strip() for name in re.findall(r'<h4 class="model">([^<]*)', text)]


def test_results_of_one_model_have_no_headings(tmp_path: Path) -> None:
    text = page(write(tmp_path, "toy"))
    assert headings(text) == []
    assert "The newest result of each model" not in text
    assert "toy (2 layers × 3 heads) · generated" in text


@pytest.mark.parametrize("names", [("toy", "other"), ("toy", "half"), ("toy", "other", "half")])
def test_results_of_several_models_are_grouped_and_compared(tmp_path: Path, names: tuple[str, ...]) -> None:
    text = page(write(tmp_path, *names))
    assert "more, of other commands" not in text  # they are no reruns
    assert "of the same command, not shown" not in text
    found = headings(text)
    assert len(found) == len(names) * len(EXHIBITS)
    assert len(set(found)) == len(names)
    assert text.count("The newest result of each model") == len(EXHIBITS)
    for name in set(found):
        assert f'<th scope="col">{name}' in text
    if "half" in names:
        assert {"toy, bfloat16", "toy, float32"} <= set(found)


@pytest.mark.parametrize("key", RECORDS)
def test_a_column_of_the_comparison_is_the_models_own(key: str, tmp_path: Path) -> None:
    sources = find_sources([write(tmp_path, "toy", "other")])
    (exhibit,) = [exhibit for exhibit in EXHIBITS if exhibit.key == key]
    models = Models(llm_of(result.record) for result in sources.results)
    results = shown(exhibit, sources.results, models)
    (table,) = comparisons(exhibit, results)
    assert len(set(table.columns)) == len(table.columns)
    width = len(exhibit.own)
    for number, one in enumerate(results):
        own = one.view.tables[0]
        for name, cells in own.rows:
            (row,) = [cells for label, cells in table.rows if label == name]
            assert row[number * width : (number + 1) * width] == [cells[place] for place in exhibit.own]
            assert row[2 * width :] == [cells[place] for place in exhibit.published]
        for place in exhibit.published:
            assert own.columns[place].startswith("paper, ")
        if width > 1:
            assert table.columns[number * width] == f"{one.model.label}: {own.columns[exhibit.own[0]]}"


def test_the_newest_run_counts_for_each_model(tmp_path: Path) -> None:
    write(tmp_path / "a", "toy", value=0.1111)
    write(tmp_path / "b", "other", value=0.2222)
    text = page(tmp_path)
    assert "0.1111" in text and "0.2222" in text


def test_results_of_no_known_model_are_grouped_last(tmp_path: Path) -> None:
    found = headings(page(write(tmp_path, "toy", "unknown")))
    assert found == ["toy", "model not recorded"] * len(EXHIBITS)


def test_records_of_one_model_are_one_model() -> None:
    config = {**TOY, "config": "sha256:2"}
    same = [TOY, {**TOY, "name": "/models/copy-of-toy"}, config]
    assert not Models(same).several
    labels = [model.label for model in Models([*same, {**config, "config": "sha256:3"}]).all]
    assert labels == ["toy, sha256:2", "toy, sha256:3"]


def test_the_explorer_says_model_and_task(llm: LLM, tmp_path: Path) -> None:
    explorer_store(tmp_path / "a", llm)
    explorer_store(tmp_path / "b", llm, heads=5)
    written = write_report([tmp_path], tmp_path / "report.html", samples=1).read_text()
    options = re.findall(
        r'<option value="\d">(.*?)</option>', written.split('id="pick-store"')[1].split("</select>")[0]
    )
    assert len(set(options)) == 2
    assert all(" · NIAH · " in option and llm.name in option for option in options)
    stores = json.loads(re.search(r'id="stores">(.*?)</script>', written).group(1))  # type: ignore[union-attr]
    assert [store["task"] for store in stores] == ["NIAH", "NIAH"]
    assert len({store["model"] for store in stores}) == 2


def test_an_unfinished_store_is_named_with_its_rows(run: Run, tmp_path: Path) -> None:
    identity = LLMIdentity("other", "sha256:" + "1" * 64, 2, 3, 8, "float32")
    make_store(tmp_path / "done")
    begun = resign(make_store(tmp_path / "begun", identity=identity), lambda one: one.update(complete=False))
    code, said = run("report", tmp_path, "--output", tmp_path / "out.html")
    (line,) = said.splitlines()
    manifest = json.loads((begun / "manifest.json").read_text())
    rows = sum(shard["steps"]["rows"] for shard in manifest["shards"])
    assert code == 0
    assert f"{begun} is left out" in line and f"({rows} rows of 40 samples so far)" in line
    text = html.unescape((tmp_path / "out.html").read_text())
    assert f"({rows} rows of 40 samples so far)" in text
    assert ">done · NIAH · toy</option>" in text
