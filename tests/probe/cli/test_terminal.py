"""No text of data acts on the terminal: every place that prints, with names that hold control sequences and markup."""

import ast
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities import rank_zero_info

from extract.utils import DataConsole, clean_logs, say
from probe.cli.main import LOGGERS, main
from probe.experiments.ablation.table import ablation_table
from probe.experiments.correlation.table import correlation_table
from probe.experiments.dynamism.table import dynamism_table
from probe.results.offset_results import offset_tables
from tests.helpers.result_records import RECORDS, traces
from tests.project.test_structure import FILES

HOSTILE = "[/b][red]\x1b[31m\x1b]0;title\x07\x9b2J\u202e\u2066\x7f$\\frac"
"""Closing markup, colours, a window title, a C1 sequence, changes of direction, a broken formula."""


def clean(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


def hostile(value: Any) -> Any:
    """A record whose texts are followed by control sequences, those that select what is shown left as they are."""
    if isinstance(value, dict):
        return {
            key: value[key] if key in ("target", "operator", "rule", "pairs") else hostile(value[key]) for key in value
        }
    if isinstance(value, list | tuple):
        return [hostile(one) for one in value]
    return value + HOSTILE if isinstance(value, str) else value


AVERAGE = {"average_dynamic_heads": {"non_empty": 2.0, "all": 1.5}}
Printed = Callable[..., tuple[int, str]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Exit code and everything that a command printed, which must act on no terminal."""

    def call(*args: object) -> tuple[int, str]:
        code = main([str(arg) for arg in args])
        out, error = capsys.readouterr()
        assert clean(out + error)
        return code, out + error

    return call


def test_an_error_line(printed: Printed, tmp_path: Path) -> None:
    code, said = printed("fit", "-c", "probe.yaml", "--store", tmp_path / HOSTILE)
    assert code == 2
    assert "[/b][red]\ufffd[31m" in said
    assert printed("overlap", f"{HOSTILE}.json", "b.json")[0] == 2
    assert printed("fit", "-c", HOSTILE)[0] == 2
    assert printed("fit", "-c", "probe.yaml", f"--{HOSTILE}", "1")[0] == 2


def test_a_table_of_rankings(printed: Printed, tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "")
    for file in (tmp_path / f"{name}1.json", tmp_path / "[b].json"):
        file.write_text('{"0-0": [0.5], "0-1": [0.25], "1-1": [0.1]}')
    code, said = printed("overlap", tmp_path / f"{name}1.json", tmp_path / "[b].json", "--n", 1)
    assert code == 0
    assert "shared in the top 1" in said


def test_a_trace(printed: Printed, tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    lines = [hostile(trace) for trace in traces(1)]
    for trace in lines:
        trace["metrics"]["forward_tokens"] = 9
        for round_ in trace["rounds"]:
            for window in round_["windows"] or ():
                window["start"] = 3
    file.write_text("\n".join(map(json.dumps, lines)))
    code, said = printed("trace", file, "--count", 2)
    assert code == 0
    assert said.count("[/b][red]") > 10
    assert printed("trace", file, "--sample", HOSTILE)[0] == 2


def test_the_report_and_what_it_leaves_out(printed: Printed, tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "")
    (tmp_path / name).mkdir()
    (tmp_path / name / "results.json").write_text(json.dumps({"schema": HOSTILE, "command": HOSTILE}))
    code, said = printed("report", tmp_path / name, "--output", tmp_path / f"{name}.html")
    assert code == 0
    assert "is left out" in said and "written to" in said


@pytest.mark.parametrize(
    "table",
    [
        lambda: dynamism_table(hostile(RECORDS["dynamism"] | {"evaluation": "held out"})),
        lambda: correlation_table(hostile(RECORDS["correlation"] | {"evaluation": "held out"}), 5),
        lambda: ablation_table(hostile(RECORDS["ablation"] | AVERAGE), ["accuracy", "rouge_l"]),
        lambda: offset_tables({**RECORDS["offset_probes"], "samples": HOSTILE}),
    ],
)
def test_tables_of_experiments(table: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    DataConsole(width=200).print(table())
    out = capsys.readouterr().out
    assert clean(out)
    assert len(out) > 200


def test_logs_and_warnings(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    clean_logs(*LOGGERS)
    with caplog.at_level(logging.INFO):
        rank_zero_info(f"{HOSTILE}: resuming after 3 batches")
        rank_zero_info("%s: complete", HOSTILE)
    assert len(caplog.records) == 2
    assert all(clean(record.getMessage()) and "[/b]" in record.getMessage() for record in caplog.records)
    assert clean(warnings.formatwarning(HOSTILE, UserWarning, "file.py", 3, ""))
    say(HOSTILE)
    assert clean(capsys.readouterr().out)


def test_a_config_that_is_shown(printed: Printed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.yaml").write_text(json.dumps({"store": HOSTILE}))
    with pytest.raises(SystemExit):
        main(["fit", "-c", "probe.yaml", "-c", str(tmp_path / "theirs.yaml"), "--print_config"])
    shown = capsys.readouterr().out
    assert clean(shown)
    assert r"\u202E" in shown


def test_nothing_else_prints() -> None:
    """Every `print`, console and write to a stream of the packages is one of the functions above, or of fixed text."""
    own = {"probe.cli.main": 1, "probe.cli.commands.configs": 3, "extract.utils.terminal": 1}
    found: dict[str, int] = {}
    for module, file in FILES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("print", "Console", "rich.print", "sys.stdout.write", "sys.stderr.write", "tqdm.write"):
                    found[module] = found.get(module, 0) + 1
    assert found == own
