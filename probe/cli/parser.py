"""A parser whose errors are one line, and the commands that it parses."""

import difflib
import functools
import inspect
import json
import operator
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, get_args

from jsonargparse import ArgumentParser, auto_cli

from extract.errors import UserError
from extract.utils import check_arguments
from probe.cli.config.safe import be_safe, check_command_line, check_switches, refusal

_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|^- Expected a <class 'NoneType'>|"
    r"^(- )?(Subtypes|Errors|Given value|Given value type):.*"
)

_DENIED = re.compile(r"""Parser key "([^"]+)":.*?Importing '([^']+)' is not allowed""", flags=re.DOTALL)

_NESTED = re.compile(r"--[\w.]+\.init_args\.\w+\.[\w.]+")

ARGUMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "attribute": {"file": {"type": str}},
    "configs": {"folder": {"type": str, "nargs": "?"}, "--force": {"action": "store_true"}},
    "diagnose": {"file": {"type": str}},
    "merge": {"stores": {"type": str, "nargs": "+"}, "--verify": {"action": "store_true"}},
    "overlap": {"first": {"type": str}, "second": {"type": str}, "--verify": {"action": "store_true"}},
    "ranking": {"store": {"type": str}, "file": {"type": str}, "--verify": {"action": "store_true"}},
    "report": {"runs": {"type": str, "nargs": "+"}, "--verify": {"action": "store_true"}},
}
"""By command, the arguments whose form jsonargparse does not derive from a signature."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion for a mistyped word, to put after a message; empty if no known word is near.

    >>> did_you_mean("max_epohcs", ["max_epochs", "max_steps"])
    " (did you mean 'max_epochs'?)"
    >>> did_you_mean("devices", ["max_epochs", "max_steps"])
    ''

    """
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def integer_first(hint: Any) -> Any:
    """A union of types in which `int` comes before `float`; any other type as it is.

    A parser takes the first type that fits: "1" is a number of batches only where it tries `int` first. Lightning
    writes `Union[int, float]`, but `typing` gives the equal `Union[float, int]` where a library made that one earlier.

    >>> integer_first(float | int | None)
    int | float | None

    """
    parts = get_args(hint)
    if int not in parts or float not in parts:
        return hint
    others = (part for part in parts if part not in (int, float))
    return functools.reduce(operator.or_, others, int | float)  # `|` makes a new union; `Union[…]` may give an old one


def with_nulls(argv: Sequence[str]) -> list[str]:
    """A command line with each `null` of a setting within a setting as a config of one key.

    jsonargparse reads it as the word where such a setting is a field of a dataclass.

    >>> with_nulls(["fit", "--data.init_args.split.limit", "null", "--trainer.logger", "null"])
    ['fit', '-c', '{"data": {"init_args": {"split": {"limit": null}}}}', '--trainer.logger', 'null']

    """
    found: list[str] = []
    for argument in argv:
        option, stated, value = argument.partition("=")
        if argument == "null" and found and _NESTED.fullmatch(found[-1]):
            found[-1:] = ["-c", _nested(found[-1], None)]
        elif stated and value == "null" and _NESTED.fullmatch(option):
            found += ["-c", _nested(option, None)]
        else:
            found.append(argument)
    return found


def _nested(option: str, value: Any) -> str:
    """A config of one key as JSON."""
    for part in reversed(option.removeprefix("--").split(".")):
        value = {part: value}
    return json.dumps(value)


def without_noise(message: str) -> str:
    """The lines of a report of jsonargparse that name the mistake, as one."""
    lines = (_NOISE.sub("", line.strip()).strip(" -") for line in message.splitlines())
    return " ".join(line for line in lines if line)


def refused_class(error: BaseException) -> str:
    r"""Which class of a library, or of the user, refused to be made, and why; empty for this project's classes.

    >>> error = ValueError("Problem with given class_path 'lightning.pytorch.loggers.WandbLogger':\n  no wandb")
    >>> refused_class(error)
    'lightning.pytorch.loggers.WandbLogger: no wandb'

    """
    link: BaseException | None = error
    while link is not None:
        if found := re.match(
            r"Problem with given class_path '(?!extract\.|datamodules\.|probe\.)(.*?)':\s*", str(link)
        ):
            return " ".join(f"{found[1]}: {str(link)[found.end() :]}".split())
        link = link.__cause__
    return ""


class Parser(ArgumentParser):
    """Reports what is wrong with the arguments as one line."""

    def add_class_arguments(self, *arguments: Any, **options: Any) -> list[str]:
        """Add the parameters of a class, so that whole numbers stay whole."""
        added: list[str] = super().add_class_arguments(*arguments, **options)
        for action in self._actions:
            if hasattr(action, "_typehint"):
                action._typehint = integer_first(action._typehint)
        return added

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the lines of jsonargparse's report that name the mistake, with a suggestion for a mistyped key.

        Raises:
            UserError: always.

        """
        if denied := _DENIED.search(message):
            raise refusal(*denied.groups()) from ex
        text = without_noise(message)
        raise UserError((text[:300] + " …" if len(text) > 300 else text) + self._suggestion(text)) from ex

    def _suggestion(self, text: str) -> str:
        """What a mistyped key or class name may have meant."""
        if "did you mean" in text:
            return ""
        if key := re.search(r"(?:unrecognized arguments: --|ption ')([\w.]+)", text):
            return did_you_mean(key[1], self._keys())
        if name := re.search(r"No ([\w.]+) attribute (\w+)", text):  # lazy_loader's words for a package's missing name
            return did_you_mean(name[2], dir(sys.modules[name[1]]))
        return ""

    def _keys(self) -> set[str]:
        return {name for action in self._actions for name in (action.dest, *_stage_keys(action)) if name}


def _stage_keys(action: Any) -> list[str]:
    """Keys of the stages, where an error is reported by the parser above them."""
    stages = getattr(action, "choices", None)
    if not isinstance(stages, dict):
        return []
    return [inner.dest for stage in stages.values() for inner in stage._actions]


NAMES_CLASSES = {"attribute", "diagnose"}
"""Commands whose arguments name classes; the others run no code of others, with or without `--safe`."""


def run_command(command: Callable[..., None], argv: Sequence[str], safe: bool = False) -> None:
    """Call a function with command-line arguments; its signature gives the options, its docstring their help.

    Args:
        command: The function.
        argv: The arguments.
        safe: Refuse classes that are not known, and settings by which data may run code.

    Raises:
        UserError: the arguments are wrong, or the command refuses them.

    """
    about, _, explained = (inspect.getdoc(command) or "").partition("\n\nArgs:\n")
    prog, name = f"lightning {command.__name__}", command.__name__

    @functools.wraps(command)
    def checked(**arguments: Any) -> None:
        check_arguments(command, arguments, "--")
        command(**arguments)

    if name not in ARGUMENTS:
        auto_cli(checked, args=list(argv), parser_class=Parser, prog=prog, description=about)
        return
    safe = safe and name in NAMES_CLASSES
    if name in NAMES_CLASSES:
        from probe.cli.config.config_text import bound_texts

        bound_texts(safe)
    if safe:
        be_safe()
        check_command_line(argv)
    parser = Parser(prog=prog, description=about)
    meanings = dict(re.findall(r"^ +(\w+): (.*)$", explained, flags=re.MULTILINE))
    for argument, form in ARGUMENTS[name].items():
        parser.add_argument(argument, help=meanings[argument.lstrip("-")], **form)
    parser.add_function_arguments(command, as_group=False, skip={argument.lstrip("-") for argument in ARGUMENTS[name]})
    parsed = parser.parse_args(list(argv))
    if safe:
        check_switches(parsed.as_dict())
    checked(**parser.instantiate_classes(parsed).as_dict())
