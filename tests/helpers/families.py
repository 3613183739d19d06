"""A tiny random model of each family that is supported, with the peculiarities of its attention."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from extract.llm import LLM

WINDOW = 16
"""Sliding windows of the tiny models: shorter than the tests' prompts."""
SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
EXPERTS = {"num_experts_per_tok": 2, "router_jitter_noise": 0.0, "output_router_logits": False}


@dataclass(frozen=True)
class Family:
    """A model family (its config's class), and what its tiny config has beside `SIZES` or without them."""

    kind: str
    options: dict[str, Any]
    without: tuple[str, ...] = ()

    def build(self) -> Any:
        """The model, with weights large enough that heads prefer some keys."""
        import transformers

        torch.manual_seed(0)
        sizes = {name: value for name, value in SIZES.items() if name not in self.without}
        config = getattr(transformers, f"{self.kind}Config")(**{**sizes, **self.options})
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 1:  # norms and biases are not what they start as, and sinks take their share
                    weight.add_(torch.randn_like(weight) * (1.0 if "sinks" in name else 0.3))
        return model


FAMILIES = {
    "llama-mha": Family("Llama", {"num_key_value_heads": 4}),
    "llama-gqa": Family(
        "Llama",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "mistral": Family("Mistral", {"sliding_window": WINDOW, "head_dim": 16}),
    "mixtral": Family("Mixtral", {"num_local_experts": 4, "sliding_window": WINDOW, **EXPERTS}),
    "qwen2": Family("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen3": Family("Qwen3", {"head_dim": 16}),
    "qwen3-moe": Family("Qwen3Moe", {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 16, **EXPERTS}),
    "phi3": Family("Phi3", {"partial_rotary_factor": 0.5, "sliding_window": WINDOW, "tie_word_embeddings": True}),
    "gemma2": Family(
        "Gemma2",
        {
            "head_dim": 16,
            "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 24,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
        },
    ),
    "gemma3": Family(
        "Gemma3Text",
        {"head_dim": 16, "num_key_value_heads": 1, "sliding_window": WINDOW, "layer_types": ALTERNATING},
    ),
    "olmo2": Family("Olmo2", {}),
    "stablelm": Family("StableLm", {"qk_layernorm": True, "use_parallel_residual": True, "use_qkv_bias": True}),
    "gpt-neox": Family("GPTNeoX", {"use_parallel_residual": True}, ("num_key_value_heads",)),
    "gpt2": Family("GPT2", {"scale_attn_by_inverse_layer_idx": True}, ("num_key_value_heads", "intermediate_size")),
    "cohere2": Family("Cohere2", {"logit_scale": 0.25, "sliding_window": WINDOW, "layer_types": ALTERNATING}),
    "gpt-oss": Family(
        "GptOss",
        {
            "head_dim": 16,
            "num_local_experts": 4,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            **EXPERTS,
        },
    ),
    "deepseek-v3": Family(
        "DeepseekV3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 20,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 10,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "first_k_dense_replace": 1,
        },
    ),
}


BORDER = 32
"""Original length of the tiny LongRoPE."""
LONGROPE = {
    "partial_rotary_factor": 0.5,
    "original_max_position_embeddings": BORDER,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "short_factor": [1.0, 1.1],
        "long_factor": [1.5, 6.0],
        "original_max_position_embeddings": BORDER,
    },
}


def save(family: Family, tokenizer: Any, folder: Path) -> Path:
    """The model with the embedded model's tokenizer, as `LLM` loads it."""
    family.build().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def projections(model: Any) -> list[torch.nn.Module]:
    """The output projection of each layer's attention."""
    blocks = {
        int(module.layer_idx): module
        for name, module in model.named_modules()
        if hasattr(module, "layer_idx") and name.rpartition(".")[2] in ("self_attn", "attention", "attn")
    }
    names = ("o_proj", "dense", "c_proj")
    return [
        next(getattr(blocks[layer], name) for name in names if hasattr(blocks[layer], name)) for layer in sorted(blocks)
    ]


@contextmanager
def projected(model: Any, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Change what each output projection reads, [batch, query, head × size], by layer."""

    def hook(layer: int) -> Callable[[Any, tuple[Tensor, ...]], tuple[Tensor]]:
        return lambda _, inputs: (change(layer, inputs[0]),)

    hooks = [module.register_forward_pre_hook(hook(layer)) for layer, module in enumerate(projections(model))]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def ending_llms(names: Sequence[str], ends: tuple[int, ...], tokenizer: Any, folder: Path) -> dict[str, LLM]:
    """Random models of families, or with LongRoPE (`longrope`), whose many end tokens make answers of all lengths."""
    known, made = {**FAMILIES, "longrope": Family("Phi3", LONGROPE)}, dict[str, LLM]()
    for name in names:
        made[name] = LLM(str(save(known[name], tokenizer, folder / name)), prefill_chunk=13)
        made[name]._ends = ends
    return made
