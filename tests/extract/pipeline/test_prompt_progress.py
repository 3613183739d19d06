"""Progress of an extraction, with either of Lightning's bars, and none with the bar switched off."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extract.pipeline.prompt_progress import PromptProgress
from extract.store import ScoreStore

Extract = Callable[..., tuple[int, str]]
RICH = ("--trainer.callbacks+", json.dumps({"class_path": "lightning.pytorch.callbacks.RichProgressBar"}))


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """Every state that would be shown."""
    found: list[tuple[float, str]] = []
    monkeypatch.setattr(PromptProgress, "_show", lambda self: found.append((self.share(), self.text())))
    return found


@pytest.mark.parametrize("bar", [(), RICH])
def test_prompts_prefill_steps_and_rows_are_counted(
    bar: tuple[str, ...], extract_tiny: Extract, tmp_path: Path, states: list[tuple[float, str]]
) -> None:
    code, said = extract_tiny(tmp_path / "s", "--llm.init_args.prefill_chunk", 50, *bar)
    assert code == 0 and "Predicting" not in said
    store = ScoreStore(tmp_path / "s")
    prefilled = [len(row["prompt"]) - 1 for row in store.samples().to_pylist()]
    texts = [text for _, text in states]
    for batch in (prefilled[:2], prefilled[2:4], prefilled[4:]):
        assert any(f"prefill 50/{sum(batch):,} tokens" in text for text in texts)
        assert any(f"prefill {sum(batch):,}/{sum(batch):,} tokens" in text for text in texts)
    assert [share for share, _ in states] == sorted(share for share, _ in states)  # it never goes back
    assert states[-1][0] == 5 and texts[-1].startswith("5/5 prompts, ")
    steps = [int(text.split("step ")[1].split("/")[0]) for text in texts if "step " in text]
    assert max(steps) == max(row["steps"] for row in store.samples().to_pylist())


def test_rows_are_those_of_the_store_and_a_resumed_run_counts_what_was_finished(
    extract_tiny: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[PromptProgress] = []

    def closed(self: PromptProgress) -> None:
        made.append(self)

    monkeypatch.setattr(PromptProgress, "close", closed)
    assert extract_tiny(tmp_path / "s", "--trainer.limit_predict_batches", 1)[0] == 2
    assert extract_tiny(tmp_path / "s")[0] == 0
    assert [(one.prompts, one.finished, one.done) for one in made] == [(5, 0, 2), (5, 2, 3)]
    assert sum(one.rows for one in made) == ScoreStore(tmp_path / "s").manifest["steps"]
    made.clear()
    silent: Any = ("--trainer.enable_progress_bar", "false")
    assert extract_tiny(tmp_path / "t", *silent)[0] == 0
    assert not made
