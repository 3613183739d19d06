"""Cards of probes and stores: what the hub reads of them, and that no other file is touched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard

import probe
from extract import ScoreStore
from probe.models import TrainedModule
from probe.models.model_card import probe_card
from tests.conftest import Run
from tests.helpers.result_records import LLM, RECORDS, SPLIT
from tests.helpers.stores import make_store
from tests.probe.models.test_probes import stage, store  # noqa: F401 (fixtures)

Stage = Callable[..., tuple[int, str]]


def test_a_checkpoint_has_a_card_and_a_test_fills_in_its_metrics(stage: Stage, tmp_path: Path) -> None:  # noqa: F811
    assert stage("fit")[0] == 0
    file = tmp_path / "a" / "README.md"
    card = ModelCard.load(file)
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "dynamic-retrieval-heads")
    assert "Not evaluated yet" in card.text
    assert stage("test", "--ckpt_path", tmp_path / "a" / "best.ckpt")[0] == 0
    card = ModelCard.load(file)
    (name,) = {result.dataset_name for result in card.data.eval_results}
    trained = probe.load(tmp_path / "a" / "best.ckpt")
    assert name == f"score store {trained.training_record['store'][:12]}"
    assert {result.metric_type for result in card.data.eval_results} == {"f1", "precision", "recall", "auprc"}
    assert f"{card.data.eval_results[0].metric_value:.4f}" in card.text
    assert "`lightning test -c configs/probe.yaml" in card.text
    assert trained.training_record["llm"]["weights"] in card.text


def test_a_module_of_ones_own_has_a_card_of_its_training() -> None:
    """A class that adds no card has the common part: its LLM, data and command."""
    module = TrainedModule()
    module.training_record = {"llm": LLM, "store": "s1", "target": "copy_paste", "split": SPLIT}
    card = ModelCard(module.model_card("lightning fit -c mine.yaml", "best.ckpt"))
    assert card.data.license == "apache-2.0"
    for words in (
        f"# TrainedModule for {LLM['name']}",
        LLM["weights"],
        "| data | `s1` |",
        "`lightning fit -c mine.yaml`",
    ):
        assert words in card.text


def test_probes_of_later_steps_have_a_line_for_each() -> None:
    origin = {"llm": LLM, "store": "s", "target": "copy_paste", "split": SPLIT}
    card = ModelCard(probe_card("OffsetProbes", origin, "lightning test", RECORDS["offset_probes"]))
    assert card.text.count("0.7000 [0.6900, 0.7100] | 0.7000 [0.6900, 0.7100] | 50 |") == 3
    assert "`--ckpt_path best.ckpt`" in card.text


@pytest.mark.slow
def test_a_store_has_a_card_that_opens_its_shards(extract_tiny: Callable[..., Any], tmp_path: Path) -> None:
    import datasets

    assert extract_tiny(tmp_path / "store")[0] == 0
    card, opened = DatasetCard.load(tmp_path / "store" / "README.md"), ScoreStore(tmp_path / "store")
    assert opened.fingerprint in card.text
    assert opened.manifest["command"] in card.text
    for config in card.data.configs:
        files = str(tmp_path / "store" / config["data_files"])
        rows = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(rows) == opened.manifest[config["config_name"]]


class Hub:
    """Takes what would be uploaded."""

    sent: dict[str, Any] = {}  # noqa: RUF012

    def create_repo(self, repo: str, **options: Any) -> Any:
        Hub.sent = {"repo": repo, **options}
        return type("Url", (), {"repo_id": repo})

    def upload_folder(
        self, folder_path: Any, repo_id: str, repo_type: str | None = None, ignore_patterns: list[str] | None = None
    ) -> str:
        Hub.sent |= {"uploaded_as": repo_type, "ignored": ignore_patterns}
        Hub.sent["files"] = sorted(file.name for file in Path(folder_path).iterdir())
        return f"hub:{repo_id}"


def test_pushing_sends_the_whole_folder(monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    opened = ScoreStore(make_store(tmp_path / "store"))
    assert opened.push_to_hub("me/scores", private=True) == "hub:me/scores"
    assert (Hub.sent["repo_type"], Hub.sent["private"]) == ("dataset", True)
    assert Hub.sent["ignored"] == [".*"]  # locks and temporary files
    assert {"manifest.json", "samples", "steps"} <= set(Hub.sent["files"])
    trained = probe.ProbeClassifier(8, 6, hidden=[4])
    split = {"by": "sample", "sizes": {"train": 1}, "seed": 0}  # what a card shows of it
    trained.training_record = {
        "llm": opened.identity.as_dict(),
        "store": "s",
        "target": "copy_paste",
        "split": split,
        "seen": [],
    }
    assert probe.push_to_hub(trained, "me/probe") == "hub:me/probe"
    assert Hub.sent["files"] == ["README.md", "probe.json", "probe.safetensors"]
    assert torch.is_tensor(trained.threshold)
