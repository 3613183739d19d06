"""Tokenizers of models in local folders, read once in a session: a quarter of the time of a small stage's start."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extract.llm.pretrained import Pretrained


@pytest.fixture(scope="session", autouse=True)
def loaded_tokenizers() -> Iterator[None]:
    """Every LLM of an unchanged folder gets a shallow copy of one tokenizer; no test may change what they share."""
    known: dict[Any, tuple[Any, str]] = {}
    load = Pretrained.tokenizer

    def tokenizer(self: Pretrained) -> Any:
        folder = Path(self.location)
        if not folder.is_dir():
            return load(self)
        files = ((file.name, file.stat()) for file in folder.iterdir())
        key = self, frozenset((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in files)
        if key not in known:
            made = load(self)
            known[key] = made, contents(made)
        return copy.copy(known[key][0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretrained, "tokenizer", tokenizer)
        yield
    assert all(contents(made) == before for made, before in known.values()), "a test has changed a shared tokenizer"


def contents(tokenizer: Any) -> str:
    """All that copies of a tokenizer share, but for settings of the latest call."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return str(tokenizer.backend_tokenizer.to_str())
