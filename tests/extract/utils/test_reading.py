"""Bounds of the readers: size, nesting, aliases, numbers, characters; each is one line that names its limit."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from extract.utils import check_yaml, parse_json, parse_yaml, read_json, read_lines, read_text, read_yaml
from tests.conftest import Run

BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
NUMBER = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_within_the_bounds_is_read_as_json_reads_it(value: Any) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only), "x") == value
    text = yaml.safe_dump(value)
    assert parse_yaml(text, "x") == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("[" * 100_000, "more than 100 levels"),
        ('{"a":' * 100_000, "more than 100 levels"),
        ("[" * 101 + "]" * 101, "more than 100 levels"),
        ("9" * 400, "a number of 400 digits; at most 300"),
        ("9" * 10_000, "a number of 10000 digits; at most 300"),
        ("[1e999]", "beyond the range of floating point"),
        (r'"\ud800"', "half of a surrogate pair"),
        ("[1,", "is not JSON"),
    ],
)
def test_json_beyond_a_bound(text: str, limit: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=limit) as refusal:
        read_json(tmp_path / "a.json")
    assert str(refusal.value).startswith(f"{tmp_path / 'a.json'}")
    assert "\n" not in str(refusal.value)


def test_json_at_a_bound() -> None:
    assert parse_json("[" * 100 + "]" * 100, "x")
    assert parse_json("9" * 300, "x") == int("9" * 300)
    assert parse_json(r'"\ud83d\ude00"', "x") == "😀"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (BOMB, "values once its aliases are replaced; at most 1,000,000"),
        ("a: &a [*a]", "more than 100 levels"),
        ("[" * 200 + "]" * 200, "more than 100 levels"),
        ("".join(" " * i + "a:\n" for i in range(300)), "more than 100 levels"),
        ("a: " + "9" * 400, "a number of 400 digits; at most 300"),
        ("a: 2001-99-99", "is not YAML"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("a: [1", "is not YAML"),
    ],
)
def test_yaml_beyond_a_bound(text: str, limit: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=limit) as refusal:
        read_yaml(tmp_path / "a.yaml")
    assert str(refusal.value).startswith(f"{tmp_path / 'a.yaml'}")
    assert "\n" not in str(refusal.value)


def test_aliases_that_do_not_multiply_are_allowed() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\nc: {<<: &m {x: 1}, y: *a}", "x")["b"] == [1, 2]
    check_yaml("", "x")


YAML_TOKENS = st.sampled_from([*"[]{}9x\n '#", "- ", "? ", ": ", ", ", "*a", "!!int "])


@given(st.lists(YAML_TOKENS, max_size=90).map("".join).filter(lambda text: len(text) <= 100))
def test_a_short_text_without_an_anchor_is_within_every_bound(text: str) -> None:
    """Comments lengthen it beyond what is taken unparsed."""
    for one in (text, f"{text}\n{'#' * 100}"):
        with suppress(yaml.YAMLError):
            check_yaml(one, "x")


@pytest.mark.parametrize("nested", ["[" * 50 + "]" * 50, "- " * 49 + "x", "? " * 49 + "x", "[" * 100, "9" * 100])
def test_the_deepest_short_texts_are_within_every_bound(nested: str) -> None:
    with suppress(yaml.YAMLError):
        check_yaml(f"{nested}\n{'#' * 100}", "x")


def test_a_short_text_with_a_character_that_yaml_refuses_is_parsed() -> None:
    for text in ("\udcff", "a\x00"):
        with pytest.raises(yaml.YAMLError):
            check_yaml(text, "x")


def test_a_short_text_with_an_anchor_is_checked() -> None:
    with pytest.raises(UserError, match="more than 100 levels"):
        check_yaml("&a [*a]", "x")


def test_sizes_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("é\n\nbc\n".encode())
    assert read_text(file, most=8) == "é\n\nbc\n"
    assert list(read_lines(file, most=3)) == [(f"{file}, line 1", "é\n"), (f"{file}, line 3", "bc\n")]
    with pytest.raises(UserError, match="larger than 6 bytes"):
        read_text(file, most=6)
    with pytest.raises(UserError, match="line 1, has more than 2 bytes"):
        list(read_lines(file, most=2))
    file.write_bytes(b"\xff")
    for read in (read_text, lambda path: list(read_lines(path))):
        with pytest.raises(UserError, match="is not UTF-8 text"):
            read(file)


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (BOMB, "values once its aliases are replaced"),
        ("[" * 200 + "]" * 200, "more than 100 levels"),
        ("seed_everything: " + "9" * 400, "a number of 400 digits"),
    ],
)
@pytest.mark.parametrize("form", ["file", "text", "option"])
def test_a_config_beyond_a_bound_is_one_line(content: str, limit: str, form: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content)
    given_as = {"file": ("-c", tmp_path / "a.yaml"), "text": ("-c", content), "option": ("--model", content)}[form]
    code, error = run("fit", "-c", "probe.yaml", *given_as)
    assert code == 2
    (line,) = error.splitlines()
    assert limit in line
    assert len(line) < 700
