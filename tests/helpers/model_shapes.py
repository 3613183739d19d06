"""Shapes of the shipped LLMs, as in their configs on the hub, and their memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class Shape:
    """A model of transformers: the name of its class, its config, and the settings of a tiny one."""

    kind: str
    options: dict[str, Any]
    smaller: dict[str, Any]

    def config(self, **changes: Any) -> Any:
        """Its config, with `changes`."""
        import transformers

        return getattr(transformers, f"{self.kind}Config")(**{**self.options, **changes})

    def parameters(self) -> int:
        """Number of weights, tied ones once."""
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config())
        return sum(weight.numel() for weight in model.parameters())

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of the KV cache of so many tokens, in 16 bits."""
        config = self.config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * config.num_hidden_layers * config.num_key_value_heads * size * 2 * tokens)


def shape(kind: str, layers: int, heads: int, kv_heads: int, hidden: int, **options: Any) -> Shape:
    """A shape, and what makes it small: two layers, heads of width 8."""
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    smaller = {"num_hidden_layers": 2, "hidden_size": heads * 8, "intermediate_size": 64, "vocab_size": 512, **tokens}
    if options.get("head_dim"):
        smaller["head_dim"] = 8
    return Shape(kind, {**sizes, "hidden_size": hidden, **options}, {**smaller, "initializer_range": 0.2})


PHI_ROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
PHI_ROPE["original_max_position_embeddings"] = 4096
SHAPES = {
    "llama3.1-8b": shape(
        *("Llama", 32, 32, 8, 4096),
        intermediate_size=14336,
        vocab_size=128256,
        max_position_embeddings=131072,
        rope_parameters={**LLAMA3_ROPE, "factor": 8.0},
    ),
    "llama3.2-3b": shape(
        *("Llama", 28, 24, 8, 3072),
        intermediate_size=8192,
        vocab_size=128256,
        max_position_embeddings=131072,
        head_dim=128,
        tie_word_embeddings=True,
        rope_parameters={**LLAMA3_ROPE, "factor": 32.0},
    ),
    "qwen3-8b": shape(
        *("Qwen3", 36, 32, 8, 4096),
        intermediate_size=12288,
        vocab_size=151936,
        max_position_embeddings=40960,
        head_dim=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    ),
    "llama2-13b": shape(
        *("Llama", 40, 40, 40, 5120), intermediate_size=13824, vocab_size=32000, max_position_embeddings=4096
    ),
    "phi4-mini": shape(
        *("Phi3", 32, 24, 8, 3072),
        intermediate_size=8192,
        vocab_size=200064,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        sliding_window=262144,
        tie_word_embeddings=True,
        partial_rotary_factor=0.75,
        rope_parameters={**PHI_ROPE, "short_factor": [1.0] * 48, "long_factor": [1.0 + n for n in range(48)]},
    ),
}
SHAPES["phi4-mini"].smaller["rope_parameters"] = {
    **PHI_ROPE,
    **{"short_factor": [1.0] * 3, "long_factor": [1.5, 4.0, 9.0]},
}


def save_tiny_llama(llm: Any, folder: Path) -> None:
    """A random 3-layer Llama with grouped heads, and another LLM's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(llm.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    llm.tokenizer.save_pretrained(folder)
