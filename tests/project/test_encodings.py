"""Files are read and written in a stated encoding: a locale must change nothing."""

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

FILES = [*(file for name in ("extract", "datamodules", "probe") for file in (ROOT / name).rglob("*.py"))]
TEXT = {"read_text", "write_text", "open", "fdopen", "NamedTemporaryFile", "TemporaryFile"}


def unstated(source: str) -> Iterator[int]:
    """Lines of calls that open a text file in the encoding of the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        values = [arg.value for arg in (*node.args, *(k.value for k in node.keywords)) if isinstance(arg, ast.Constant)]
        modes = [value for value in values if isinstance(value, str) and set(value) <= set("rwxab+")]
        binary = name in ("open", "NamedTemporaryFile", "TemporaryFile", "fdopen") and any(
            "b" in mode for mode in modes
        )
        of_os = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in ("os", "Trials", "self")
        stated = any(keyword.arg == "encoding" for keyword in node.keywords)
        if name in TEXT and not (stated or binary or of_os):
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("p.read_text()", [1]),
        ("p.read_text(encoding='utf-8')", []),
        ("p.write_text('b')", [1]),
        ("open(p)", [1]),
        ("p.open('rb')", []),
        ("open(p, mode='wb')", []),
    ],
)
def test_the_check_finds_a_call(source: str, found: list[int]) -> None:
    assert list(unstated(source)) == found


def test_every_text_file_is_opened_in_a_stated_encoding() -> None:
    opened = [f"{file.relative_to(ROOT)}:{line}" for file in FILES for line in unstated(file.read_text("utf-8"))]
    known = [place for place in opened if _is_of_another_kind(place)]
    assert set(opened) == set(known)


def _is_of_another_kind(place: str) -> bool:
    """Calls of the same name that open no file in the locale's encoding: `Trials.open`, and our `read_text`."""
    file, _, line = place.rpartition(":")
    text = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    return "trials.open(" in text or "Trials" in text or " read_text(" in text or "(read_text(" in text
