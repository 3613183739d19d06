"""The frozen LLM computes in `llm.dtype`, also where the caller is under autocast."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, FSDPPrecision, MixedPrecision, Precision

from extract.attention import attention_received
from extract.errors import UserError
from extract.generation import (
    ContextMaskedLLM,
    DynamicHeads,
    GenerationRequest,
    decode,
    full_view,
    generate_ablated,
)
from extract.llm import LLM
from extract.tasks import Sample
from extract.utils import check_precision
from probe.experiments.ablation import AblateDynamic, Condition, NoAblation


@pytest.fixture(scope="module")
def tiny(tiny_llm_folder: Path) -> LLM:
    return LLM(str(tiny_llm_folder))


def samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(5, 500, (3, 90), generator=generator).tolist()
    return [Sample(n, str(n), ids, [(5, 15)], budget=6, question="", gold="") for n, ids in enumerate(prompts)]


def decoded(llm: LLM) -> list[Any]:
    found = decode(llm, samples())
    return [found.tokens, found.hidden, found.copy_paste, found.reasoning, found.argmax]


def ablated(llm: LLM) -> list[Any]:
    conditions: list[Condition] = [NoAblation(), AblateDynamic(2)]
    found = generate_ablated(llm, samples(), conditions, DynamicHeads("reasoning", threshold=0.1))
    parts = [found.of(row, place) for row in range(3) for place in range(2)]
    return [tensor for part in parts for tensor in (part.tokens, part.before, part.after)]


def masked(llm: LLM) -> list[Any]:
    model, view = ContextMaskedLLM(llm), full_view(samples()[0].ids)
    (done,) = model.generate([GenerationRequest(0, view, 6, lambda _: False)])
    last = model.read_full_context(0, view)
    return [torch.tensor(done.tokens), torch.tensor(done.entropies), last.hidden, last.attention]


def received(llm: LLM) -> list[Any]:
    return list(attention_received(llm.model, [[5, 6, 7], [8, 9]], include_self=True))


@pytest.mark.parametrize("run", [decoded, ablated, masked, received])
def test_autocast_changes_no_bit(tiny: LLM, run: Callable[[LLM], list[Any]]) -> None:
    plain = run(tiny)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.bfloat16
        mixed = run(tiny)
        assert torch.is_autocast_enabled("cpu")
    for one, other in zip(plain, mixed, strict=True):
        torch.testing.assert_close(other, one, atol=0, rtol=0, equal_nan=True)


PLUGINS: list[tuple[Any, bool]] = [
    (Precision(), True),
    (MixedPrecision("bf16-mixed", "cpu"), True),
    (MixedPrecision("16-mixed", "cpu"), True),
    (FSDPPrecision("bf16-mixed"), False),
    (DeepSpeedPrecision("32-true"), False),
]


@pytest.mark.parametrize(("plugin", "accepted"), PLUGINS)
def test_plugins_that_convert_are_refused(plugin: Any, accepted: bool) -> None:
    trainer = Trainer(accelerator="cpu", plugins=plugin, logger=False, enable_checkpointing=False)
    if accepted:
        check_precision(trainer)
        return
    with pytest.raises(UserError, match=rf"trainer\.precision {plugin.precision} \({type(plugin).__name__}\)"):
        check_precision(trainer)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_true_precisions_are_refused_before_the_model_loads(
    precision: str, extract_tiny: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[str]()
    monkeypatch.setattr(LLM, "model", property(lambda llm: loaded.append(llm.name)))
    code, error = extract_tiny(tmp_path / "s", "--trainer.precision", precision)
    assert code == 2
    assert f"trainer.precision {precision}" in error
    assert not loaded
    assert not (tmp_path / "s").exists()


def test_extraction_under_mixed_precision_writes_the_same_rows(
    extract_tiny: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    for precision in ("32-true", "bf16-mixed"):
        assert extract_tiny(tmp_path / precision, "--trainer.precision", precision)[0] == 0
    for table in ("samples", "steps"):
        files = sorted((tmp_path / "32-true" / table).iterdir())
        assert len(files) == 3
        for file in files:
            assert (tmp_path / "bf16-mixed" / table / file.name).read_bytes() == file.read_bytes()
