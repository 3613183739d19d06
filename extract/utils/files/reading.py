"""Reading of JSON, YAML and text files: UTF-8, bounded in size, nesting and numbers, with one line on what is wrong."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from extract.errors import UserError

MOST_BYTES = 2**28
"""Size of a file that is read whole."""
MOST_YAML_BYTES = 2**22
"""Size of a YAML text."""
MOST_LINE = 2**26
"""Bytes of a line of JSON Lines."""
MOST_LEVELS = 100
"""Levels of lists and mappings within each other."""
MOST_NODES = 10**6
"""Values of a YAML text, those of an alias counted wherever it is used."""
MOST_DIGITS = 300
"""Digits of a number: with more, it is beyond the range of floating point."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class UnreadableError(UserError, ValueError):
    """A file whose content is not of its format, or beyond a bound."""


def read_text(path: str | Path, most: int = MOST_BYTES) -> str:
    """Content of a UTF-8 text file.

    Args:
        path: The file.
        most: Largest size in bytes.

    Raises:
        UserError: it is larger, or not UTF-8.

    """
    with Path(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UnreadableError(f"{path} is larger than {most:,} bytes, the most that is read")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def read_json(path: str | Path, **options: Any) -> Any:
    """Value of a JSON file; see `parse_json` for options and errors."""
    return parse_json(read_text(path), str(path), **options)


def read_lines(path: str | Path, most: int = MOST_LINE) -> Iterator[tuple[str, str]]:
    """Lines of a UTF-8 text file, each after its place for messages; blank ones are left out.

    Args:
        path: The file.
        most: Most bytes of a line.

    Raises:
        UserError: a line is longer, or not UTF-8.

    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(most + 1), b""), start=1):
            where = f"{path}, line {number}"
            if len(line) > most:
                raise UnreadableError(f"{where}, has more than {most:,} bytes, the most read")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise UnreadableError(f"{where}, is not UTF-8 text ({error.reason})") from error
            if text.strip():
                yield where, text


def parse_json(
    text: str,
    where: str,
    undefined: float | None = float("nan"),
    pairs: Callable[[list[Any]], Any] | None = None,
    surrogates: bool = False,
) -> Any:
    """Value of a JSON text.

    Args:
        text: The text.
        where: Names it in messages.
        undefined: Value of `NaN`, which Python writes and JSON does not know.
        pairs: Makes an object of its keys and values; by default a dict.
        surrogates: Let halves of surrogate pairs pass, where each text is checked by itself.

    Raises:
        UserError: it is no JSON, too deep, or holds a number or a character that cannot be used.

    >>> parse_json("[1, NaN]", "mine.jsonl, line 1", undefined=None)
    [1, None]
    >>> parse_json("[" * 200 + "]" * 200, "mine.jsonl, line 1")
    Traceback (most recent call last):
    extract.utils.files.reading.UnreadableError: mine.jsonl, line 1: more than 100 levels of lists and objects

    """

    def constant(name: str) -> float | None:
        return undefined if name == "NaN" or undefined is None else float(name)

    hooks: dict[str, Any] = {"parse_int": _integer, "parse_float": _number, "parse_constant": constant}
    try:
        value = json.loads(text, object_pairs_hook=pairs, **hooks)
        _check_levels(value)
        if not surrogates and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnreadableError as error:
        raise UnreadableError(f"{where}: {error}") from None
    except RecursionError:
        raise UnreadableError(f"{where}: {_TOO_DEEP}") from None
    except UnicodeEncodeError:
        raise UnreadableError(f"{where}: half of a surrogate pair, which is no character") from None
    except ValueError as error:
        raise UnreadableError(f"{where} is not JSON ({error})") from error
    return value


_TOO_DEEP = f"more than {MOST_LEVELS} levels of lists and objects"


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise UnreadableError(f"a number of {len(digits)} digits; at most {MOST_DIGITS}")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise UnreadableError(f"the number {text[:20]} is beyond the range of floating point")
    return value


def _check_levels(value: Any) -> None:
    """Refuse deep nesting: what reads or writes such a value later would recurse as deep."""
    level, levels = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        levels += 1
        if levels > MOST_LEVELS:
            raise UnreadableError(_TOO_DEEP)
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]


def read_yaml(path: str | Path) -> Any:
    """Plain value of a YAML file; see `parse_yaml`."""
    return parse_yaml(read_text(path, MOST_YAML_BYTES), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Plain value of a YAML text.

    Raises:
        UserError: it is no YAML, or beyond a bound (see `check_yaml`).

    >>> parse_yaml("lengths: [1, 2]", "mine.yaml")
    {'lengths': [1, 2]}

    """
    try:
        check_yaml(text, where)
        return yaml.safe_load(text)
    except UnreadableError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise UnreadableError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def check_yaml(text: str, where: str) -> None:
    r"""Refuse a YAML text that would take much more memory or time than its size tells.

    Raises:
        UserError: it is too long, too deep, has a number of too many digits, or aliases that multiply.
        yaml.YAMLError: it is no YAML.

    >>> check_yaml("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "small.yaml")
    >>> check_yaml("a: &a [*a]", "endless.yaml")
    Traceback (most recent call last):
    extract.utils.files.reading.UnreadableError: endless.yaml: more than 100 levels of lists and objects

    """
    # A short text without an anchor is within every bound; characters that YAML refuses are its parser's to name.
    if len(text) <= MOST_LEVELS and "&" not in text and text.isascii() and text.isprintable():
        return
    if len(text) > MOST_YAML_BYTES:
        raise UnreadableError(f"{where}: YAML of more than {MOST_YAML_BYTES:,} characters, the most that is read")
    try:
        root = _compose(text)
        count = 0 if root is None else _count(root, {}, 0)
    except RecursionError:
        raise UnreadableError(f"{where}: {_TOO_DEEP}") from None
    except UnreadableError as error:
        raise UnreadableError(f"{where}: {error}") from None
    if count > MOST_NODES:
        raise UnreadableError(f"{where}: {count:,} values once its aliases are replaced; at most {MOST_NODES:,}")


def _compose(text: str) -> yaml.Node | None:
    """The nodes of a text, by libyaml where PyYAML has it: ten times as fast. Errors are those of Python's parser."""
    try:
        return yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError):  # a lone surrogate is a ValueError there
        return yaml.compose(text, Loader=yaml.SafeLoader)


def _count(node: yaml.Node, known: dict[int, int], level: int) -> int:
    """Values of a node, those of an alias counted at every use."""
    if level > MOST_LEVELS:
        raise UnreadableError(_TOO_DEEP)
    if id(node) not in known:
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
                raise UnreadableError(f"a number of {len(node.value)} digits; at most {MOST_DIGITS}")
            return 1
        inner = node.value if isinstance(node, yaml.SequenceNode) else [one for pair in node.value for one in pair]
        known[id(node)] = 1 + sum(_count(one, known, level + 1) for one in inner)
    return known[id(node)]


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
