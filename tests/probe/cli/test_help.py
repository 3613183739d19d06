"""Help: each command shows what its docstring says."""

import inspect
import re
from pkgutil import resolve_name

import pytest

from probe.cli.main import COMMANDS, HELP, main
from tests.conftest import ROOT


def words(text: str) -> str:
    """Text without what wrapping changes."""
    return re.sub(r"-\s+", "-", " ".join(text.split()))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_its_docstring(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    shown = words(capsys.readouterr().out)
    command = resolve_name(f"probe.cli.commands.{name}:{name}")
    about, _, arguments = (inspect.getdoc(command) or "").partition("Args:")
    explained = re.findall(r"^ +(\w+): (.*)$", arguments, flags=re.MULTILINE)
    assert words(about) in shown
    assert [argument for argument, _ in explained] == list(inspect.signature(command).parameters)
    for argument, meaning in explained:
        assert argument in shown
        assert words(meaning).rstrip(".") in shown


def test_every_command_has_a_module_and_a_line_of_help() -> None:
    modules = {file.stem for file in (ROOT / "probe/cli/commands").glob("*.py")} - {"__init__"}
    assert set(COMMANDS) == modules
    assert all(f"\n  {name} " in HELP for name in COMMANDS)


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_is_the_overview(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out == HELP
