"""Keys that the documentation names: each is an option of its config's command, as typed."""

import json
import re
from functools import cache
from typing import Any

import pytest
import yaml

from probe.cli.main import main
from probe.cli.named_callbacks import NAMED
from tests.conftest import ROOT
from tests.project.test_configs import CONFIGS, OVERLAYS, commands, without_checkpoint
from tests.project.test_docs import TEXTS

SECTIONS = "|".join(("model", "data", "llm", "trainer", *NAMED))
KEY = re.compile(rf"(?:--)?((?:{SECTIONS})(?:\.[a-z_0-9]+)+)(?: [^`\n]+)?")
BASES = [name for name in CONFIGS if name not in OVERLAYS and not name.startswith(("configs/llm", "configs/extract/s"))]


def assumptions() -> dict[str, str]:
    """Config by key of the table of assumptions."""
    rows = re.findall(r"\| `(configs/[^`]+)` \| `([^`]+)` \|", (ROOT / "docs" / "assumptions.md").read_text())
    assert len(rows) > 30
    return {f"{config} {key}": config for config, key in rows}


def spans() -> set[str]:
    """Keys in code spans of all pages."""
    code = {span for page in TEXTS for span in re.findall(r"`([^`\n]+)`", page.read_text())}
    found = {match[1] for span in code if (match := KEY.fullmatch(span))}
    assert len(found) > 40
    return {key for key in found if not key.endswith((".yaml", ".md"))}


@cache
def argv(config: str) -> tuple[str, ...]:
    return tuple(without_checkpoint(commands(config)[0]))


def value(settings: Any, key: str) -> Any:
    """A value of a config by its key; KeyError if there is none."""
    for part in key.split("."):
        if not isinstance(settings, dict):
            raise KeyError(key)
        settings = settings[part]
    return settings


def has(settings: Any, key: str) -> bool:
    try:
        value(settings, key)
    except KeyError:
        return False
    return True


def typed(setting: Any) -> str:
    return setting if isinstance(setting, str) else json.dumps(setting)


def plain(setting: Any) -> Any:
    """Settings with every value as text: Lightning reads a number of devices as text from the command line."""
    if isinstance(setting, dict):
        return {name: plain(inner) for name, inner in setting.items()}
    return [plain(inner) for inner in setting] if isinstance(setting, list) else str(setting)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The config that a command would run."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main([*words, "--print_config"]))
    found = capsys.readouterr()
    assert not stop.value.code, found.err
    return yaml.safe_load(found.out)


def test_every_documented_key_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    """A key of a table of assumptions in the config beside it; any other in the shipped configs that have it."""
    rows, left = assumptions(), spans()
    for config in BASES:
        before = printed(capsys, *argv(config))
        mine = {row.partition(" ")[2] for row, where in rows.items() if where == config}
        assert [key for key in mine if not has(before, key)] == [], config
        keys = sorted(mine | {key for key in left if has(before, key)})
        left -= set(keys)
        if keys:
            options = [word for key in keys for word in (f"--{key}", typed(value(before, key)))]
            assert plain(printed(capsys, *argv(config), *options)) == plain(before)
    assert left == set()
