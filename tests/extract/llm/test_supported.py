"""Unsupported models are refused by name; narrow windows are warned of."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from extract.attention import RecordingPlan, instrumented, recording
from extract.errors import UserError
from extract.generation import ContextMaskedLLM, GenerationRequest, PromptView
from extract.generation.batching import warn_of_windows
from extract.llm import LLM, narrowest_window
from extract.tasks import Sample
from tests.helpers.families import FAMILIES, LONGROPE, Family, save

SMALL = {
    "vocab_size": 100,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
HYBRID = {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2}
ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("Falcon", {}, "FalconForCausalLM: its attention does not go through transformers' AttentionInterface"),
        ("Bloom", {}, "BloomForCausalLM: its attention does not go through transformers' AttentionInterface"),
        ("Bert", {}, "BertLMHeadModel: its attention is not causal \\(an encoder\\)"),
        ("T5", {"d_model": 16, "num_layers": 1}, "T5Config: an encoder-decoder"),
        ("ViT", {}, "ViTConfig: no causal language model"),
        ("Mamba", {}, "MambaForCausalLM: its cache has layers of LinearAttentionLayer"),
        ("Qwen3Next", HYBRID, "Qwen3NextForCausalLM: its cache has layers of LinearAttentionLayer"),
        ("Llama", {"rope_parameters": ROPE}, "LlamaForCausalLM: its position embedding changes with the length"),
    ],
)
def test_a_model_whose_heads_cannot_be_recorded_exactly_is_refused_by_name(
    tmp_path: Path, kind: str, options: dict[str, Any], why: str
) -> None:
    """Before its weights are loaded: the folder holds none."""
    sizes = SMALL if kind != "T5" else {}
    getattr(transformers, f"{kind}Config")(**{**sizes, **options}).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=why):
        _ = LLM(str(tmp_path)).model


def test_a_multimodal_model_is_refused_by_name(tmp_path: Path) -> None:
    config = transformers.Gemma3Config(text_config=SMALL | {"head_dim": 8})
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="Gemma3ForConditionalGeneration: a multimodal model"):
        _ = LLM(str(tmp_path)).model


def test_a_window_smaller_than_the_evidence_is_warned_of() -> None:
    model, plain = FAMILIES["gemma3"].build(), FAMILIES["llama-mha"].build()
    assert (narrowest_window(model), narrowest_window(plain)) == (16, None)
    short, long = (Sample(0, "0", list(range(50)), [(3, 3 + n)], 2, "", "") for n in (16, 17))
    with pytest.warns(UserWarning, match="a window of 16 tokens cannot see evidence of 17 tokens as a whole"):
        warn_of_windows(model, [short, long])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_windows(model, [short])
        warn_of_windows(plain, [long])


def test_masked_prompts_stay_within_the_border_of_longrope(llm: LLM, tmp_path: Path) -> None:
    """Kept keys were turned by one set of angles, which a longer prompt would change."""
    phi = ContextMaskedLLM(LLM(str(save(Family("Phi3", LONGROPE), llm.tokenizer, tmp_path / "phi3"))))
    view = PromptView(tuple(range(5, 35)), tuple(range(30)), (True,) * 30, 30)
    job = GenerationRequest(0, view, 2, lambda _: False)
    assert len(phi.generate([job])[0].tokens) <= 2
    assert phi.read_full_context(0, view).attention.shape == (12, 30)
    with pytest.raises(
        UserError, match="Phi3ForCausalLM: a prompt of 33 tokens reaches beyond its original length, 32"
    ):
        phi.generate([GenerationRequest(0, view, 3, lambda _: False)])


def test_ablation_of_another_shape_is_refused(llm: LLM, tmp_path: Path) -> None:
    model = LLM(str(save(FAMILIES["llama-gqa"], llm.tokenizer, tmp_path))).model
    plan = RecordingPlan(ablate=torch.zeros(1, 3, 5, dtype=torch.bool))
    with (
        instrumented(model),
        pytest.raises(UserError, match="ablate names 3 layers × 5 heads, but LlamaForCausalLM has 3 × 4"),
        recording(model, plan),
    ):
        pass


@pytest.mark.parametrize("name", ["position_bias", "indices"])
def test_attention_that_is_not_known_is_refused_by_name(llm: LLM, tmp_path: Path, name: str) -> None:
    model = LLM(str(save(FAMILIES["llama-gqa"], llm.tokenizer, tmp_path))).model
    with pytest.raises(UserError, match=f"LlamaAttention: attention with '{name}' is not supported"):
        model(torch.tensor([[5, 6]]), **{name: torch.zeros(1)})


def test_a_mask_for_each_head_is_refused(llm: LLM, tmp_path: Path) -> None:
    model = LLM(str(save(FAMILIES["llama-gqa"], llm.tokenizer, tmp_path))).model
    with instrumented(model), recording(model), pytest.raises(UserError, match="a mask for each head"):
        model(torch.tensor([[5]]), attention_mask=torch.ones(1, 4, 1, 1, dtype=torch.bool))
