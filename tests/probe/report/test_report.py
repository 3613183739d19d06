"""`lightning report`: each exhibit shows its own results, numbers are unchanged, nothing is run or fetched."""

import base64
import gzip
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.llm import LLM
from extract.store import ScoreStore
from probe.report import write_report
from probe.report.blobs import pack, quantise
from probe.report.exhibits import EXHIBITS
from tests.conftest import Run
from tests.extract.store.test_score_store import damage
from tests.helpers.bad_input import resign
from tests.helpers.explorer_store import NEEDLE, explorer_store
from tests.helpers.result_records import RECORDS, traces
from tests.helpers.stores import make_store


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one result of each kind, and traces."""
    folder = tmp_path_factory.mktemp("runs")
    for key, record in RECORDS.items():
        file = folder / key / "results.json"
        file.parent.mkdir()
        file.write_text(json.dumps(record))
    lines = [json.dumps(line) for line in traces(3)]
    (folder / "rag" / "traces.jsonl").write_text("\n".join(lines))
    return folder


def blobs(page: str) -> dict[str, bytes]:
    found = re.findall(r'<script type="application/gzip" id="blob-([\w-]+)">([^<]*)</script>', page)
    return {name: gzip.decompress(base64.b64decode(data)) for name, data in found}


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inverse of `pack`, by its documentation."""
    size = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + size])
    arrays = {}
    for name, entry in header.pop("arrays").items():
        assert (4 + size + entry["start"]) % 8 == 0
        arrays[name] = np.frombuffer(
            data, f"<{np.dtype(entry['type']).str[1:]}", entry["length"], 4 + size + entry["start"]
        )
    return header, arrays


@pytest.mark.parametrize("key", RECORDS)
def test_a_result_belongs_to_one_exhibit(key: str) -> None:
    assert [exhibit.key for exhibit in EXHIBITS if exhibit.takes(RECORDS[key])] == [key]


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.key)
def test_plots_are_valid_for_plotly(exhibit: Any) -> None:
    view = exhibit.view(RECORDS[exhibit.key])
    for plot in view.plots:
        spec = json.loads(re.sub(r'"var:--\w+(:[\d.]+)?"', '"#000000"', json.dumps(plot.spec)))
        go.Figure(spec)  # raises on a key or a value that plotly.js does not have
    for table in view.tables:
        assert {len(cells) for _, cells in table.rows} == {len(table.columns)}


def test_the_page_is_self_contained_and_its_numbers_are_the_records(runs: Path, tmp_path: Path) -> None:
    page = write_report([runs], tmp_path / "report.html").read_text()
    shown = html.unescape(page)
    assert "Not measured yet" not in page
    for record in RECORDS.values():
        assert record["command"] in shown
    for text in ("0.8123 <small>[0.7900, 0.8300]</small>", "0.8038 – 0.8566", "f" * 64):
        assert text in page
    outside = re.findall(r'(?:src|href|action|url\()\s*=?\s*["\']?(https?:)?//', page.split('id="blob-')[0])
    assert not outside
    assert "connect-src" not in page and "default-src 'none'" in page
    plots = json.loads(blobs(page)["plots"])
    assert len(plots) == sum(len(e.view(RECORDS[e.key]).plots) for e in EXHIBITS)
    indices = [int(number) for number in re.findall(r'data-plot="(\d+)"', page)]
    assert indices == list(range(len(plots)))


def test_missing_results_are_named_with_their_commands(runs: Path, tmp_path: Path) -> None:
    page = html.unescape(write_report([runs / "dynamism"], tmp_path / "report.html").read_text())
    missing = page[page.index('id="missing"') :]
    for exhibit in EXHIBITS:
        assert (exhibit.command in missing) == (exhibit.key != "dynamism")
    assert "lightning predict -c configs/extract/niah.yaml" in page  # and how to get something to explore


def test_missing_values_are_left_blank(tmp_path: Path) -> None:
    record = json.loads(json.dumps(RECORDS["ablation-k"]))
    for estimates in record["metrics"]["baseline_correct"].values():  # as when no answer is correct without ablation
        for cell in estimates.values():
            cell |= {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    (tmp_path / "results.json").write_text(json.dumps(record))
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    json.loads(blobs(page)["plots"], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "nan" not in page.split('id="blob-')[0].split("<main")[1].split()


def test_the_newest_run_of_a_command_is_shown(tmp_path: Path) -> None:
    for number, f1 in enumerate((0.1111, 0.2222)):
        record = RECORDS["classifier"]
        file = tmp_path / f"version_{number}" / "results.json"
        file.parent.mkdir()
        file.write_text(json.dumps({**record, "probe": {**record["probe"], "f1": f1}}))
        os.utime(file, (1000 + number, 1000 + number))
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "0.2222" in page and "0.1111" not in page and "1 of the same command" in page


def test_the_explorer_has_the_values_of_the_store(llm: LLM, tmp_path: Path) -> None:
    store = ScoreStore(explorer_store(tmp_path / "explorer", llm))
    page = write_report([tmp_path / "explorer"], tmp_path / "report.html", samples=2).read_text()
    (description,) = json.loads(re.search(r'id="stores">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    assert (description["layers"], description["heads"], description["held_out"]) == (3, 4, True)
    samples = [line["sample"] for line in description["samples"]]
    assert len(samples) <= 2
    header, arrays = unpack(blobs(page)["sample-0-0"])
    steps = store.steps(samples[0])
    assert header["prompt"] == len(steps.sample["prompt"])
    assert NEEDLE in "".join(header["tokens"][: header["prompt"]])
    assert np.array_equal(arrays["scoring_copy_paste"], steps.copy_paste.ravel())
    assert np.array_equal(arrays["scoring_reasoning"], steps.reasoning.ravel() >= 0.5)
    assert np.array_equal(arrays["argmax"], steps.argmax.ravel())  # type: ignore[union-attr]
    assert np.allclose(arrays["value_reasoning"] / 254, steps.reasoning.ravel(), atol=1 / 254)


def test_settings_of_the_explorer(llm: LLM, tmp_path: Path, run: Run) -> None:
    store = ScoreStore(explorer_store(tmp_path / "explorer", llm))
    flags = ("--static_top", 3, "--threshold", 0.9, "--predicted_top", 2, "--output", tmp_path / "report.html")
    assert run("report", tmp_path / "explorer", *flags)[0] == 0
    page = (tmp_path / "report.html").read_text()
    (description,) = json.loads(re.search(r'id="stores">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    assert (len(description["static"]), description["threshold"]) == (3, 0.9)
    _, arrays = unpack(blobs(page)["sample-0-0"])
    steps = store.steps(description["samples"][0]["sample"])
    assert np.array_equal(arrays["scoring_reasoning"], steps.reasoning.ravel() >= 0.9)
    assert "--static_top 3 --predicted_top 2 --threshold 0.9" in html.unescape(page)
    code, said = run("report", tmp_path / "explorer", "--static_top", 0)
    assert (code, said.count("\n")) == (2, 1)
    assert "--static_top: at least 1, not 0" in said


class Tags(HTMLParser):
    """Names of all elements outside of script texts."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "script":
            self.kinds.append(dict(attrs).get("type"))


def test_texts_of_models_and_data_are_never_markup(llm: LLM, tmp_path: Path) -> None:
    explorer_store(tmp_path / "explorer", llm)
    record = {**RECORDS["classifier"], "command": "lightning </code><script>alert(1)</script>"}
    (tmp_path / "results.json").write_text(json.dumps(record))
    tags = Tags()
    tags.feed(write_report([tmp_path], tmp_path / "report.html").read_text())
    assert tags.kinds.count(None) == 1  # the page's own script alone would run


def test_a_missing_folder_is_refused(run: Run, tmp_path: Path) -> None:
    code, error = run("report", tmp_path / "none", "--output", tmp_path / "out.html")
    assert code == 2 and "nothing at" in error and not (tmp_path / "out.html").exists()


def damaged(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", b"{", "damaged"),
        ("results.json", b"[]", "it is no JSON object"),
        ("results.json", b"\xff\xfe", "damaged"),
        ("results.json", b"[" * 10**5, "more than 100 levels"),
        ("results.json", b'{"experiment": 3, "schema": 2}', "holds no results"),
        ("results.json", b'{"experiment": "dynamism", "schema": 2}', "record is incomplete"),
        ("results.json", b'{"experiment": "ablation", "schema": 2, "dynamic_heads": 3}', "record is incomplete"),
        ("best.ckpt", b"junk", "not a readable checkpoint"),
        ("probe.json", b"{}", "holds no saved probe"),
    ],
)
def test_a_damaged_input_is_named_and_left_out(
    run: Run, runs: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    damaged(tmp_path / "bad", name, content)
    code, error = run("report", tmp_path / "bad", runs / "dynamism", "--output", tmp_path / "out.html")
    (line,) = error.splitlines()
    assert code == 0 and str(tmp_path / "bad") in line and "left out" in line and message in line
    assert RECORDS["dynamism"]["command"] in html.unescape((tmp_path / "out.html").read_text())


def test_an_unfinished_and_a_damaged_store_are_left_out(run: Run, runs: Path, tmp_path: Path) -> None:
    begun = resign(make_store(tmp_path / "begun"), lambda manifest: manifest.update(complete=False))
    flipped = make_store(tmp_path / "flipped")
    damage(flipped / "steps" / "000000.arrow", "flipped")
    code, error = run("report", begun, flipped, runs / "dynamism", "--output", tmp_path / "out.html")
    assert code == 0 and f"{begun} is left out: score store" in error and f"{flipped} is left out" in error
    assert RECORDS["dynamism"]["command"] in html.unescape((tmp_path / "out.html").read_text())


def test_results_of_another_schema_are_left_out_by_name(run: Run, runs: Path, tmp_path: Path) -> None:
    former = {**RECORDS["classifier"], "schema": 1, "command": "lightning test -c former.yaml"}
    (tmp_path / "results.json").write_text(json.dumps(former))
    code, error = run("report", tmp_path, runs / "dynamism", "--output", tmp_path / "out.html")
    assert code == 0
    (line,) = error.splitlines()
    assert str(tmp_path / "results.json") in line and "schema is 1" in line and "former.yaml" in line
    page = html.unescape((tmp_path / "out.html").read_text())
    assert RECORDS["dynamism"]["command"] in page and "former.yaml" not in page


def test_damaged_traces_are_left_out_and_the_line_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(RECORDS["rag"]))
    (tmp_path / "traces.jsonl").write_text(json.dumps(traces(1)[0]) + "\n{\n")
    code, error = run("report", tmp_path, "--output", tmp_path / "out.html")
    (line,) = error.splitlines()
    assert code == 0 and "traces.jsonl, line 2, is no trace" in line
    assert RECORDS["rag"]["command"] in html.unescape((tmp_path / "out.html").read_text())


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=1))
def test_quantised_scores_are_within_half_a_step(values: list[float]) -> None:
    coded, plain = quantise(np.array(values)), np.array(values)
    assert np.array_equal(coded == 255, np.isnan(plain))
    assert np.nanmax(np.abs(coded[coded < 255] / 254 - plain[coded < 255]), initial=0) <= 0.5 / 254 + 1e-9


@given(st.text(max_size=9), st.lists(st.integers(0, 65535)), st.lists(st.integers(0, 255)))
def test_packed_arrays_come_back(text: str, wide: list[int], narrow: list[int]) -> None:
    arrays = {"wide": np.array(wide, np.uint16), "narrow": np.array(narrow, np.uint8)}
    header, found = unpack(gzip.decompress(base64.b64decode(pack({"text": text}, arrays))))
    assert header == {"text": text}
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_the_command_says_where_the_page_is(run: Run, runs: Path, tmp_path: Path, capsys: Any) -> None:
    from probe.cli.main import main

    assert main(["report", str(runs / "dynamism"), str(runs / "rag"), "--output", str(tmp_path / "page.html")]) == 0
    assert f"written to {tmp_path / 'page.html'}" in capsys.readouterr().out
