"""GGUF files: the conversion is the file's model, its cache is checked, the tokenizer is the one that is named."""

import json
import os
import unicodedata
import warnings
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from extract.llm import LLM
from extract.llm import gguf as conversion
from extract.llm.gguf import converted
from extract.llm.pre_tokenizers import DIGITS, GPT2, WHOLE_WORDS
from extract.utils.files.processes import this_process
from tests.helpers.gguf_files import write_gguf


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRIEVAL_HEADS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def test_a_converted_file_is_reused_while_nothing_changed(cache: Path, file: Path) -> None:
    folder = converted(file)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert converted(file) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert sorted(path.name for path in cache.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_unfinished_conversions_of_ended_processes_are_removed(cache: Path, file: Path) -> None:
    own = this_process()
    ended = f".tiny.{own.system}-{own.pid}-{own.started + 1}-{'0' * 16}.drh-tmp"
    running = f".tiny.{own.system}-{own.pid}-{own.started}-{'0' * 16}.drh-tmp"
    for name in (ended, running, ".converting-ab3_x9kq", ".converting-mine"):
        (cache / name).mkdir(parents=True)
        (cache / name / "model.safetensors").write_bytes(b"half")
        os.utime(cache / name, times=(0, 0))
    folder = converted(file)
    left = {path.name for path in cache.iterdir()} - {folder.name, f"{folder.name}.lock"}
    assert left == {running, ".converting-mine"}


@pytest.mark.parametrize("changed", ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"])
@pytest.mark.parametrize("how", ["edited", "missing"])
def test_a_change_of_any_cached_file_converts_again(cache: Path, file: Path, changed: str, how: str) -> None:
    folder = converted(file)
    former = (folder / changed).read_bytes()
    if how == "edited":
        (folder / changed).write_bytes(former.replace(b"1", b"2", 1))
    else:
        (folder / changed).unlink()
    assert converted(file) == folder
    assert (folder / changed).read_bytes() == former


def test_a_file_added_to_the_cache_converts_again(cache: Path, file: Path) -> None:
    added = converted(file) / "chat_template.jinja"
    added.write_text("{{ messages }}")
    converted(file)
    assert not added.exists()


def test_another_version_of_what_converts_has_a_folder_of_its_own(
    cache: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {converted(file)}
    monkeypatch.setattr(conversion, "CONVERSION", conversion.CONVERSION + 1)
    folders.add(converted(file))
    monkeypatch.setattr(conversion, "version", lambda name: f"later {name}")
    folders.add(converted(file))
    assert len(folders) == 3


@pytest.mark.parametrize(
    ("how", "why"),
    [({"blocks": 3}, r"9 weights are missing"), ({"spoiled": np.nan}, "NaN"), ({"spoiled": np.inf}, "NaN or infinite")],
)
def test_weights_that_are_not_the_configs_are_refused(cache: Path, tmp_path: Path, how: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        converted(write_gguf(tmp_path / "wrong.gguf", **how))
    assert not list(cache.glob("*/"))


def pieces(text: str) -> list[str]:
    """The digit rule in words: every number character is a piece, and so is the text between two."""
    runs = groupby(text, key=lambda character: unicodedata.category(character).startswith("N"))
    return [part for number, run in runs for part in (run if number else ["".join(run)])]


TEXTS = st.text(alphabet="ab  .,'s12٣½Ⅷ七\n\té", max_size=20)


@pytest.fixture(scope="module")
def gpt2(llm: LLM) -> Any:
    """The embedded model's vocabulary and merges with GPT-2's pre-tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import ByteLevel

    plain = Tokenizer.from_file(str(Path(llm.folder) / "tokenizer.json"))
    plain.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return plain


@given(text=TEXTS)
def test_smollm_isolates_every_digit(llm: LLM, gpt2: Any, text: str) -> None:
    """Tokens of a text are those of its digits and of the texts between them, each by GPT-2's pre-tokenizer."""
    wanted = [token for part in pieces(text) for token in gpt2.encode(part, add_special_tokens=False).ids]
    assert llm.tokenizer(text, add_special_tokens=False)["input_ids"] == wanted


def test_two_spaces_before_a_digit_stay_together(llm: LLM) -> None:
    tokenizer = llm.tokenizer
    ids = tokenizer("and  1977", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["and", "ĠĠ", "1", "9", "7", "7"]
    state = json.loads((Path(llm.folder) / "tokenizer.json").read_text())["pre_tokenizer"]
    # as in the tokenizer.json that HuggingFaceTB publishes with SmolLM2
    digits = {"type": "Digits", "individual_digits": True}
    rest = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    assert state == {"type": "Sequence", "pretokenizers": [digits, rest]}


CASES = {
    "smollm": ["and", "  ", "1", "2", "3", "4", "'s"],
    "gpt-2": ["and", " ", " 1234", "'s"],
    "llama-bpe": ["and", " ", " ", "123", "4", "'s"],
    "qwen2": ["and", " ", " ", "1", "2", "3", "4", "'s"],
}
"""How each family splits one text: digits alone, in one group with a space, in threes, alone after single spaces."""


@pytest.mark.parametrize("name", CASES)
def test_a_files_tokenizer_splits_as_its_name_says(cache: Path, tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = LLM(str(write_gguf(tmp_path / "named.gguf", pre=name)))
        tokenizer: Any = made.tokenizer
    text = "and  1234's"
    found = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in found] == CASES[name]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert json.loads(tokenizer.backend_tokenizer.to_str())["model"]["ignore_merges"] == (name in WHOLE_WORDS)


@pytest.mark.parametrize("name", ["of-tomorrow", None])
def test_an_unknown_pre_tokenizer_is_named_at_every_load(cache: Path, tmp_path: Path, name: str | None) -> None:
    file = write_gguf(tmp_path / "strange.gguf", pre=name)
    for _ in range(2):
        with pytest.warns(UserWarning, match=f"pre-tokenizer, {name!r}, is not known"):
            converted(file)


def test_families_of_pre_tokenizers_are_apart() -> None:
    assert not DIGITS & GPT2
    assert not WHOLE_WORDS & (DIGITS | GPT2)
