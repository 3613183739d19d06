"""A parser whose errors are one line, and the commands that it parses."""

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, auto_cli

from extract.errors import UserError

_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|^- Expected a <class 'NoneType'>|"
    r"^(- )?(Subtypes|Errors|Given value|Given value type):.*"
)

ARGUMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "configs": {"folder": {"type": str, "nargs": "?"}, "--force": {"action": "store_true"}},
    "report": {"runs": {"type": str, "nargs": "+"}},
}
"""By command, the arguments whose form jsonargparse does not derive from a signature."""


class Parser(ArgumentParser):
    """Reports what is wrong with the arguments as one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the lines of jsonargparse's report that name the mistake, with a suggestion for a mistyped key.

        Raises:
            UserError: always.

        """
        lines = (_NOISE.sub("", line.strip()).strip(" -") for line in message.splitlines())
        text = " ".join(line for line in lines if line)
        unknown = re.search(r"(?:unrecognized arguments: --|ption ')([\w.]+)", text)
        hint = self._suggest(unknown.group(1)) if unknown and "did you mean" not in text else ""
        raise UserError((text[:300] + " …" if len(text) > 300 else text) + hint) from ex

    def _suggest(self, key: str) -> str:
        known = {name for action in self._actions for name in (action.dest, *_stage_keys(action)) if name}
        close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.6)
        return f" (did you mean '{close[0]}'?)" if close else ""


def _stage_keys(action: Any) -> list[str]:
    """Keys of the stages, where an error is reported by the parser above them."""
    stages = getattr(action, "choices", None)
    if not isinstance(stages, dict):
        return []
    return sorted({inner.dest for stage in stages.values() for inner in stage._actions})


def run_command(command: Callable[..., None], argv: Sequence[str]) -> None:
    """Call a function with command-line arguments; its signature gives the options, its docstring their help.

    Raises:
        UserError: the arguments are wrong, or the command refuses them.

    """
    about, _, explained = (inspect.getdoc(command) or "").partition("\n\nArgs:\n")
    prog, name = f"lightning {command.__name__}", command.__name__
    if name not in ARGUMENTS:
        auto_cli(command, args=list(argv), parser_class=Parser, prog=prog, description=about)
        return
    parser = Parser(prog=prog, description=about)
    meanings = dict(re.findall(r"^ +(\w+): (.*)$", explained, flags=re.MULTILINE))
    for argument, form in ARGUMENTS[name].items():
        parser.add_argument(argument, help=meanings[argument.lstrip("-")], **form)
    parser.add_function_arguments(command, as_group=False, skip={argument.lstrip("-") for argument in ARGUMENTS[name]})
    command(**parser.parse_args(list(argv)).as_dict())
