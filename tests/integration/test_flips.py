"""Changed bytes in every kind of file that is read back: none passes."""

import os
from pathlib import Path

import pytest

from tests.benchmarks.flips import MAKERS, Count, count_flips

CHANGES = 20
"""`python -m tests.benchmarks.flips` makes 200 of each kind."""


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: str(maker.__name__))
def test_no_changed_byte_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: object) -> None:
    monkeypatch.setenv("RETRIEVAL_HEADS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    (tmp_path / "made").mkdir()
    for name, kind in maker(tmp_path / "made").items():  # type: ignore[operator]
        count = count_flips(kind, CHANGES)
        assert count == Count(CHANGES, equal=count.equal), name
