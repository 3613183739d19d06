"""Outputs that the user names replace what this software wrote there, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.errors import UserError
from probe import write_ranking, write_report
from probe.heads import Ranking
from tests.helpers.stores import make_store

RANKING = Ranking(np.array([[0.5, 0.25], [0.125, 1.0]]), True, "test")
FORMATS = [".json", ".yaml", ".tsv"]


def content(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_a_report_does_not_follow_a_link_at_a_name_that_can_be_guessed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "victim").write_text("victim")
    (tmp_path / "report.html.tmp").symlink_to("victim")
    for _ in range(2):  # its own page is replaced
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    assert (tmp_path / "victim").read_text() == "victim"
    assert (tmp_path / "report.html.tmp").is_symlink()


def test_a_report_goes_to_what_a_link_names(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.html").symlink_to("www.html")
    for _ in range(2):
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    assert (tmp_path / "report.html").is_symlink()
    assert (tmp_path / "www.html").stat().st_size > 1000


def test_a_report_replaces_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_text("<title>Mine</title>")
    with pytest.raises(UserError, match=r"thesis\.html exists and is no report of this software"):
        write_report([tmp_path], tmp_path / "thesis.html")
    assert content(tmp_path) == {"thesis.html": "<title>Mine</title>"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_ranking_replaces_no_other_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"package{suffix}"
    for _ in range(2):
        write_ranking(RANKING, file)
    file.write_text('{"name": "a web app"}')
    with pytest.raises(UserError, match="exists and is no ranking"):
        write_ranking(RANKING, file)
    assert content(tmp_path) == {file.name: '{"name": "a web app"}'}


@pytest.mark.parametrize("name", ["results.json", "results.csv"])
def test_results_replace_no_other_file(measured: Callable[..., Any], tmp_path: Path, name: str) -> None:
    make_store(tmp_path / "s")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    said = measured("dynamism", tmp_path / "s")
    assert f"{name} was not written by this software" in said
    assert content(tmp_path / "out") == {name: "{}"}


def test_results_replace_their_own_and_leave_pictures_of_the_user(
    measured: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_store(tmp_path / "s")
    assert "experiment" in measured("dynamism", tmp_path / "s", "--model.init_args.static_top", 3)
    plots = [file.name for file in (tmp_path / "out").glob("*.png")]
    for name in ("results.json", "results.csv"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / plots[0]).write_text("mine")
    assert "experiment" in measured("dynamism", tmp_path / "s", "--model.init_args.static_top", 3)
    assert (tmp_path / "out" / plots[0]).read_text() == "mine"
    assert f"{plots[0]} was not written by this software" in caplog.text
    assert "experiment" in measured(
        "dynamism", tmp_path / "s", "--model.init_args.static_top", 3
    )  # a folder of results
    assert json.loads((tmp_path / "out" / "results.json").read_text())["experiment"] == "dynamism"
