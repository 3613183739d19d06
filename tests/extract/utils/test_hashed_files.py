"""Files that carry their hash: any changed byte is found, and other readers are not disturbed."""

import io
import json
import zipfile
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.errors import UserError
from extract.utils import add_zip_hash, check_zip_hash, hashed_json, parse_hashed, read_hashed

TEXT = st.text(max_size=4)
VALUES = st.none() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(st.booleans() | TEXT, max_size=3)
CONTENTS = st.dictionaries(TEXT, VALUES | st.dictionaries(TEXT, VALUES, max_size=2), max_size=3)
OPTIONS = st.fixed_dictionaries({"indent": st.sampled_from([None, 1, 2]), "ensure_ascii": st.booleans()})


@settings(max_examples=50)
@given(content=CONTENTS, options=OPTIONS)
def test_json_comes_back_and_is_json(content: dict[str, Any], options: dict[str, Any]) -> None:
    data = hashed_json(content, **options)
    assert parse_hashed(data) == (content, True)
    assert {key: value for key, value in json.loads(data).items() if key != "sha256"} == content
    assert parse_hashed(json.dumps(content, **options).encode()) == (content, False)


@settings(max_examples=50)
@given(content=CONTENTS, options=OPTIONS, place=st.integers(0), value=st.integers(1, 255))
def test_any_changed_byte_of_json_is_found(content: Any, options: Any, place: int, value: int) -> None:
    data = bytearray(hashed_json(content, **options))
    data[place % len(data)] ^= value
    with pytest.raises(ValueError):  # noqa: PT011 (whatever the parser says)
        parse_hashed(bytes(data))


@pytest.mark.parametrize("change", ["value", "key", "spaces", "hash", "added"])
def test_edited_json_is_refused_with_what_to_do(tmp_path: Any, change: str) -> None:
    data = hashed_json({"steps": 3}).decode()
    edits = {
        "value": data.replace("3", "4", 1),
        "key": data.replace('"sha256"', '"sha255"'),
        "spaces": data.replace(": 3", ":  3"),
        "hash": data.replace(json.loads(data)["sha256"], "0" * 64),
        "added": data.replace("{", '{"more": 1, ', 1),
    }
    (tmp_path / "x.json").write_text(edits[change])
    with pytest.raises(UserError, match=r"x\.json is damaged \(its sha256 does not match.*; begin again"):
        read_hashed(tmp_path / "x.json", "begin again")


@pytest.mark.parametrize("text", ["[1]", "{", "", '{"a": 1} 2', "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_hashed(text.encode())


def archive() -> io.BytesIO:
    file = io.BytesIO()
    torch.save({"weights": torch.arange(5.0), "step": 3}, file)
    return file


def test_a_hashed_archive_is_read_by_torch_and_zip(tmp_path: Any) -> None:
    file = archive()
    assert not check_zip_hash(file)
    add_zip_hash(file)
    assert check_zip_hash(file)
    (tmp_path / "x.ckpt").write_bytes(file.getvalue())
    assert zipfile.ZipFile(tmp_path / "x.ckpt").testzip() is None
    for mapped in (False, True):
        loaded = torch.load(tmp_path / "x.ckpt", weights_only=True, mmap=mapped)
        assert loaded["step"] == 3
        assert torch.equal(loaded["weights"], torch.arange(5.0))


def test_any_flipped_bit_of_an_archive_is_found() -> None:
    file = archive()
    add_zip_hash(file)
    whole = file.getvalue()
    found = 0
    for bit in range(0, 8 * len(whole), 7):  # a bit or two of every byte
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="does not match"):
            check_zip_hash(io.BytesIO(data))
        found += 1
    assert found > len(whole)


@pytest.mark.parametrize("lost", [1, 64, 71, 72, 93, 94, 500])
def test_a_lost_tail_of_an_archive_is_found(lost: int) -> None:
    file = archive()
    add_zip_hash(file)
    with pytest.raises(ValueError, match=r"match|missing"):
        check_zip_hash(io.BytesIO(file.getvalue()[:-lost]))
