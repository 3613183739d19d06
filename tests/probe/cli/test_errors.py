"""Which exceptions are a user's mistake, and what is said of a bug."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from extract.errors import UserError
from probe.cli import main as command_line
from probe.cli.errors import issues_page, report_exception, user_message
from tests.conftest import ROOT, Run


def raised(action: Any, *arguments: Any) -> BaseException:
    try:
        action(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_bug_says_that_it_is_one_and_where_its_log_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("probe.cli.commands.configs.shipped_files", lambda: 1 // 0)
    monkeypatch.setattr("probe.cli.errors._is_users", lambda _: False)  # the lambda above is of a test
    code, error = run("configs")
    (line,) = error.splitlines()
    (log,) = tmp_path.iterdir()
    assert code == 70 and "bug" in line and "ZeroDivisionError" in line and str(log) in line
    assert "probe/cli/commands/configs.py, line" in line and issues_page() in line
    assert log.read_text(encoding="utf-8").rstrip().endswith("ZeroDivisionError: integer division or modulo by zero")
    assert log.stat().st_mode & 0o077 == 0


def test_the_issues_page_is_that_of_the_metadata() -> None:
    assert issues_page() in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_what_a_users_module_raises_names_its_file_and_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my_commands.py").write_text("def broken():\n    return {}['x']\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import my_commands  # type: ignore[import-not-found]

    monkeypatch.setattr("probe.cli.commands.configs.shipped_files", my_commands.broken)
    code, error = run("configs")
    assert (code, error) == (2, f"error: {tmp_path}/my_commands.py, line 2, in broken: KeyError: 'x'\n")


def test_exhausted_memory_is_no_bug() -> None:
    assert "out of memory" in (user_message(raised(torch.empty, 2**50)) or "")
    assert "out of memory" in (user_message(MemoryError()) or "")


def test_a_users_mistake_is_found_among_the_causes() -> None:
    error = ValueError("outer")
    error.__cause__ = UserError("lower\n`lengths`")
    assert user_message(error) == "lower `lengths`"


def test_a_library_that_refuses_the_configuration_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = raised(torch.nn.Dropout, 3.0)
    assert user_message(error) is not None  # of this test's own module
    monkeypatch.setattr("probe.cli.errors._is_users", lambda _: False)
    assert user_message(error) is None
    monkeypatch.setattr("probe.cli.errors.PACKAGES", (__file__,))
    monkeypatch.setattr("probe.cli.errors.PASSED_ON", (__file__,))
    assert re.match("the configuration is refused by torch: ValueError: dropout", str(user_message(error)))


def test_no_place_for_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    monkeypatch.setattr("probe.cli.errors._is_users", lambda _: False)
    assert report_exception(raised(lambda: 1 // 0)) == 70
    assert "RETRIEVAL_HEADS_DEBUG=1 shows it" in capsys.readouterr().err


def test_arguments_are_utf_8_in_every_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads what an ASCII locale does not know as surrogates."""
    seen = "針".encode().decode("ascii", "surrogateescape")
    assert command_line._as_unicode(seen) == "針"
    assert command_line._as_unicode("針") == "針"
    assert command_line._as_unicode("\udcff") == "\udcff"


@pytest.mark.skipif(sys.flags.utf8_mode, reason="every file is read as UTF-8")
def test_debug_shows_a_bug_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_HEADS_DEBUG", "1")
    monkeypatch.setattr("probe.cli.commands.configs.shipped_files", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run("configs")
