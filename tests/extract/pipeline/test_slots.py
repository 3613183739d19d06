"""Extraction by continuous batching: the store is the one of whole batches, also after an interruption."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extract.pipeline.prompt_progress import PromptProgress
from extract.store import ScoreStore
from tests.extract.store.test_score_store import assert_same

Extract = Callable[..., tuple[int, str]]
SLOTS = ("--data.init_args.batch_size", 3, "--model.init_args.slots", 2)


def test_slots_give_the_rows_of_whole_batches_and_resume_to_the_same_bytes(
    extract_tiny: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    monkeypatch.setattr(PromptProgress, "_show", lambda self: shares.append(self.share()))
    assert extract_tiny(tmp_path / "whole", *SLOTS)[0] == 0
    assert shares == sorted(shares) and shares[-1] == 5
    assert extract_tiny(tmp_path / "broken", *SLOTS, "--trainer.limit_predict_batches", 1)[0] == 2
    assert extract_tiny(tmp_path / "broken", *SLOTS)[0] == 0
    assert ScoreStore(tmp_path / "broken").fingerprint == ScoreStore(tmp_path / "whole").fingerprint
    assert extract_tiny(tmp_path / "batches")[0] == 0
    assert_same(tmp_path / "whole", tmp_path / "batches")
    assert [row["sample"] for row in ScoreStore(tmp_path / "whole").samples().to_pylist()] == [
        row["sample"] for row in ScoreStore(tmp_path / "batches").samples().to_pylist()
    ]
