"""Texts of configs and of values on the command line: bounds before they are parsed, classes before an import."""

import functools
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_dumper, set_loader

from extract.utils import check_yaml, printable, read_text
from probe.cli.safe import check_classes


def bound_texts(safe: bool) -> None:
    """Let jsonargparse load only texts within the bounds of `extract.utils.check_yaml`.

    Args:
        safe: Check the classes that they name, too.

    """
    load = get_loader("yaml")
    load = getattr(load, "__wrapped__", load)

    @functools.wraps(load)
    def bounded(stream: str) -> Any:
        check_yaml(stream, "config")
        value = load(stream)
        if safe:
            check_classes(value)
        return value

    set_dumper("yaml", _dump)
    set_loader("yaml", bounded, exceptions=(yaml.YAMLError,))


def _dump(data: Any) -> str:
    """YAML of a config; text that a terminal would act on, such as a change of direction, is escaped."""
    options: dict[str, Any] = {"default_flow_style": False, "sort_keys": False}
    text = str(yaml.safe_dump(data, allow_unicode=True, **options))
    return text if printable(text, keep="\n") == text else str(yaml.safe_dump(data, **options))


def check_config(value: str) -> None:
    """Refuse a config file that is not UTF-8 or beyond a bound, by its name; a text that is no YAML is reported later.

    Raises:
        UserError: naming the file.

    """
    with suppress(OSError, ValueError):  # a value may also be YAML itself, and no possible name of a file
        if not Path(value).is_file():
            return
    with suppress(yaml.YAMLError):
        check_yaml(read_text(value), value)
