"""Texts of configs and of values on the command line: bounds before they are parsed, classes before an import."""

import functools
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_dumper, set_loader

from extract.utils import check_yaml, printable, read_text
from probe.cli.config.places import relative_to_config
from probe.cli.config.safe import check_classes


def bound_texts(safe: bool) -> None:
    """Let jsonargparse load only texts within the bounds of `extract.utils.check_yaml`, with paths as a config means.

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
        return relative_to_config(value)

    set_dumper("yaml", _dump)
    set_loader("yaml", bounded, exceptions=(yaml.YAMLError,))


def _dump(data: Any) -> str:
    """YAML of a config; text that a terminal would act on, such as a change of direction, is escaped."""
    options: dict[str, Any] = {"default_flow_style": False, "sort_keys": False}
    text = str(yaml.safe_dump(data, allow_unicode=True, **options))
    return text if printable(text, keep="\n") == text else str(yaml.safe_dump(data, **options))


def check_config(value: str) -> None:
    """Refuse a config that is not UTF-8 or beyond a bound; a text that is no YAML is reported later.

    Args:
        value: A file, or YAML itself.

    Raises:
        UserError: naming the file.

    """
    try:
        text, where = (read_text(value), value) if Path(value).is_file() else (value, "-c")
    except OSError:  # YAML is no possible name of a file
        text, where = value, "-c"
    with suppress(yaml.YAMLError):
        check_yaml(text, where)
