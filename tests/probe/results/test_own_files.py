"""Outputs that the user names replace what this software wrote there, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from extract.errors import UserError
from probe import write_ranking, write_report
from probe.heads import Ranking
from probe.results.artifacts import _save_plots
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
    out, sizes = tmp_path / "out", ("--model.init_args.static_top", 3, "--model.init_args.static_sizes", "[2]")
    assert "experiment" in measured("dynamism", tmp_path / "s", *sizes)
    plot = min(out.glob("*.png"))
    for name in ("results.json", "results.csv"):
        (out / name).unlink()
    plot.write_text("mine")
    assert "experiment" in measured("dynamism", tmp_path / "s", *sizes)
    assert plot.read_text() == "mine"
    assert f"{plot} was not written by this software" in caplog.text
    (out / "results.csv").write_text("former")
    assert "experiment" in measured("dynamism", tmp_path / "s", *sizes)  # a folder of results
    assert (out / "results.csv").read_text() != "former"


def test_a_plot_is_laid_out_once_for_all_its_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out, execute = list[Figure](), ConstrainedLayoutEngine.execute
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda own, fig: (laid_out.append(fig), execute(own, fig)))
    plot = Figure(layout="constrained")
    plot.subplots().set_ylabel("heads")
    _save_plots({"heads": plot}, tmp_path, True, None)
    assert {file.name for file in tmp_path.iterdir()} == {"heads.png", "heads.pdf"}
    assert laid_out == [plot]
