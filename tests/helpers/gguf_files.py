"""Tiny random Llama models as GGUF files, with a tokenizer of bytes and few merges."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

LAYERS, WIDTH, INNER, HEADS = 2, 32, 64, 4
MERGES = ["Ġ Ġ", "a n", "an d", "1 2", "12 3", "' s"]
SPECIAL = ["<s>", "</s>"]


def byte_alphabet() -> list[str]:
    """Byte-level BPE's character of each byte (GPT-2): printable ones stand for themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def write_gguf(path: Path, pre: str | None = "smollm", blocks: int = LAYERS, spoiled: float | None = None) -> Path:
    """A GGUF file of an untied Llama of two layers.

    Args:
        path: The file.
        pre: Name of its pre-tokenizer.
        blocks: Layers that its metadata claim.
        spoiled: Value of the first weight of the first layer's values.

    """
    tokens = [*SPECIAL, *byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(blocks)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, shape in _shapes(len(tokens)).items():
        values = np.random.default_rng(len(name)).normal(scale=0.05, size=shape).astype(np.float32)
        if name == "blk.0.attn_v.weight" and spoiled is not None:
            values[0, 0] = spoiled
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, WIDTH),
        "output.weight": (vocabulary, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        block = {f"attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        block |= {f"ffn_{part}.weight": (INNER, WIDTH) for part in ("gate", "up")}
        norms = {f"{part}_norm.weight": (WIDTH,) for part in ("attn", "ffn")}
        block = {**block, "ffn_down.weight": (WIDTH, INNER), **norms}
        found |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return found
