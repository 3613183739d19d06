"""Tables in the terminal: no wider than it, names distinct, cells on two lines at most; elsewhere plain text."""

import io
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len, set_cell_size
from rich.console import Group

from datamodules import Split
from extract.utils import DataConsole
from probe.experiments.ablation.table import ablation_table
from probe.experiments.correlation.table import correlation_table
from probe.experiments.dynamism.table import dynamism_table
from probe.metrics import Estimate
from probe.rag.results.outcomes import OTHER_GRADES, SHOWN_METRICS
from probe.rag.results.tables import answer_table, grades_table, retrieval_table
from probe.results import (
    STRATEGIES,
    TextTable,
    comparison_tables,
    metrics_table,
    offset_tables,
    probe_table,
    published_rag,
)
from tests.conftest import ROOT
from tests.helpers.result_records import RECORDS, ablation

GOLDEN = ROOT / "tests" / "data" / "tables_at_80_columns.txt"
CONDITIONS = (
    *("none", "dynamic", "static 2", "static 1.54 per step", "static 1", "static 5", "random 2, 5 sets from seed 0"),
    *("random 5, 5 sets from seed 0", "static 2 minus dynamic", "dynamic minus static 2"),
)
"""Those of the demo's ablation."""
RAG = ("dynamic", "static", "dynamic random", "fixed random", "w/o RAG", "oracle", "bm25", "gold", "full")
texts = st.text(st.sampled_from("abcdefgh -_,0123/é漢\u202e\n\t"), max_size=60)
estimates = st.builds(
    lambda value, half, digits: Estimate(value, value - half, value + half).forms(digits),
    *(st.floats(-9, 9), st.floats(0, 1), st.integers(1, 6)),
)
cells: st.SearchStrategy[Any] = st.one_of(estimates, texts)


def shown(table: Any, width: int, terminal: bool = True) -> list[str]:
    """Lines of a table on a screen of a width, or in a file."""
    screen = io.StringIO()
    DataConsole(file=screen, width=width, force_terminal=terminal, color_system=None).print(table)
    return screen.getvalue().splitlines()


def body(lines: list[str]) -> list[str]:
    """Lines between the rule below the titles and the note."""
    (rule,) = (number for number, line in enumerate(lines) if "──" in line)
    return lines[rule + 1 :]


@st.composite
def tables(draw: st.DrawFn) -> tuple[TextTable, list[str]]:
    """A table whose first value is the row's number, marked by #, so that rows can be told apart; and its names."""
    names = draw(st.lists(texts, min_size=1, max_size=8))
    headers = draw(st.lists(texts, max_size=8))
    table = TextTable("", [draw(texts), "#", *headers])
    for number, name in enumerate(names):
        table.add_row(name, f"#{number}", *(draw(cells) for _ in headers))
    return table, names


@settings(max_examples=60)
@given(tables(), st.integers(40, 200))
def test_a_table_fits_the_terminal(made: tuple[TextTable, list[str]], width: int) -> None:
    table, names = made
    lines = shown(table, width)
    assert max(map(cell_len, lines)) <= width
    rows = [line for line in body(lines)[:-1] if line.strip()]
    rows = rows[: next((n for n, line in enumerate(rows) if line.startswith(("not shown:", "without int"))), len(rows))]
    starts = [number for number, line in enumerate(rows) if "#" in line]
    assert len(starts) == len(names)
    heights = [end - start for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]
    assert set(heights) <= {1, 2}
    at = cell_len(rows[0][: rows[0].index("#")])
    labels = [
        " ".join(set_cell_size(line, at).strip() for line in rows[start : start + height]).strip()
        for start, height in zip(starts, heights, strict=True)
    ]
    assert len(set(labels)) == len(names)


@settings(max_examples=60)
@given(tables(), st.integers(40, 200))
def test_in_a_file_a_row_is_one_line_in_full(made: tuple[TextTable, list[str]], width: int) -> None:
    table, names = made
    lines = shown(table, width, terminal=False)
    assert len(lines) == len(names) + 2  # title and an empty line
    assert "─" not in "".join(lines)
    for number, (name, line) in enumerate(zip(names, lines[1:], strict=False)):
        assert f"#{number}" in line
        assert line.startswith(" ".join(name.replace("\u202e", "\ufffd").split()))
        for column in table.columns:
            assert " ".join(column.cells[number][0].split()) in line


@settings(max_examples=15)
@given(st.lists(st.builds(Estimate, st.floats(0, 1), st.just(0.25), st.just(0.75)), min_size=2, max_size=9))
def test_what_is_left_out_is_named(row: list[Estimate]) -> None:
    headers = [f"metric-{number}" for number in range(len(row))]
    table = TextTable("", ["", *headers], important=headers[-1:])
    table.add_row("name", *(estimate.forms(4) for estimate in row))
    for width in range(40, 200, 23):
        head, (_, *notes) = shown(table, width)[1 : -len(body(shown(table, width))) - 1], body(shown(table, width))
        note = " ".join(" ".join(notes).split())
        assert headers[-1] in "".join(head)  # the most important stays
        for header in headers:
            assert (header in " ".join(head)) == (
                header not in note.partition("; without")[0] or "not shown" not in note
            )
        assert bool(note.strip()) == ("results.json has all" in note)


def values() -> Any:
    """Records of a metric, none like another."""
    numbers = count(1)

    def one(digits: float = 0.0) -> dict[str, Any]:
        value = next(numbers) * 0.0137 % 1
        return {"value": value, "low": value * 0.9, "high": value + (1 - value) * 0.1, "n": 200}

    return one


def ablation_of_ten_conditions() -> Group:
    record, one = ablation("copy_paste", sweep=False), values()
    names = ("accuracy", "rouge_l", "ablated", "compensated_static")
    record["conditions"] = {name: {} for name in CONDITIONS}
    record["metrics"] = {
        group: {condition: {name: one() for name in names} for condition in CONDITIONS} for group in record["metrics"]
    }
    record["pairs"] = {"all": pairs(CONDITIONS, names[:2], one)}
    record["average_dynamic_heads"] = {"non_empty": 5.12, "all": 3.72}
    return ablation_table(record, ["accuracy", "rouge_l"])


def pairs(names: tuple[str, ...], metrics: tuple[str, ...], one: Any) -> list[dict[str, Any]]:
    """Comparisons of all conditions."""
    found = []
    for metric in metrics:
        for place, first in enumerate(names):
            for second in names[place + 1 :]:
                cell = one()
                p = cell["value"] ** 20
                found.append({"first": first, "second": second, "metric": metric, **cell, "difference": cell["value"]})
                found[-1] |= {"p": p, "p_holm": min(1.0, 9 * p), "more": 0, "less": 0}
    return found


def rag_tables() -> list[Any]:
    one = values()
    names = ("em", "f1", "recall", "first_recall", "first_chance", "precision")
    metrics: dict[str, Any] = {label: {name: one() for name in names} for label in RAG}
    for number, found in enumerate(metrics.values()):
        found |= {"visible": {"value": 1443 - 100 * number, "n": 9}, "retrievals": {"value": 1.3, "n": 9}}
        found["forward_tokens"] = {"value": 1691 + 99 * number, "n": 9}
    for found in metrics.values():
        found |= {name: one() for name in OTHER_GRADES}
    outcomes: Any = SimpleNamespace(strategies=list(RAG), metrics=lambda: metrics, values=OTHER_GRADES)
    columns: Any = [SimpleNamespace(paper_column=name if name in STRATEGIES else None) for name in RAG]
    return [
        answer_table(outcomes, "Masked dynamic RAG of toy: 200 questions, mask concat", columns),
        grades_table(outcomes),
        retrieval_table(outcomes),
        *comparison_tables(pairs(RAG, SHOWN_METRICS, one), RAG[0], RAG, SHOWN_METRICS, "questions"),
        published_rag(),
    ]


def largest_tables() -> list[Any]:
    """The tables of all experiments."""
    rows: Any = SimpleNamespace(test_path=None, store_path="stores/niah", split=Split(), offset=0)
    held_out = {"evaluation": "held out"}
    return [
        dynamism_table(RECORDS["dynamism"] | held_out),
        correlation_table(RECORDS["correlation"] | held_out, 50),
        probe_table("classifier", RECORDS["classifier"], rows),
        probe_table("regressor", RECORDS["regressor"], rows),
        offset_tables(RECORDS["offset_probes"]),
        ablation_of_ten_conditions(),
        *rag_tables(),
        metrics_table("Validation", [{"val/loss": 0.25, "val/r2_variance_weighted": 0.75}]),
    ]


def rendered() -> str:
    """The golden file: after a change of a table, write this to it, and look at it."""
    lines = [line.rstrip() for table in largest_tables() for line in [*shown(table, 80), ""]]
    return "\n".join(lines).rstrip("\n") + "\n"


def test_the_largest_tables_at_80_columns() -> None:
    assert rendered() == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 200])
def test_every_table_fits(width: int) -> None:
    for table in largest_tables():
        lines = shown(table, width)
        assert max(map(cell_len, lines)) <= width
        assert max(map(cell_len, shown(table, width, terminal=False))) >= max(map(cell_len, lines[:2]))


def test_names_that_are_cut_alike_stay_apart() -> None:
    table = TextTable("", ["", "f1"])
    names = [f"{'a-condition-of-a-very-long-name' * 4}-{number}-{'and-more' * 9}" for number in range(3)]
    for name in [*names, "static", "static"]:
        table.add_row(name, "0.5")
    said = " ".join("".join(shown(table, 40)).split())
    assert said.count("…") == 3
    assert "(2)" in said and "(3)" in said and "static (2)" in said
