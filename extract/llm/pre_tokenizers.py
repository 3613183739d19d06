"""Pre-tokenizers of GGUF files: how text is split before byte-pair merges, by the name in `tokenizer.ggml.pre`.

A GGUF file holds vocabulary and merges, but of the pre-tokenizer only a name, whose meaning is part of llama.cpp
(`llm_tokenizer_bpe` in src/llama-vocab.cpp). transformers builds those with a regular expression of their own; others
become GPT-2's, without a warning.
"""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GPT2 = frozenset(
    "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert mpt olmo jais exaone4 "
    "jina-v1-en jina-v2-code roberta-bpe trillion granite-docling".split()
)
"""Names of GPT-2's: contractions, words, numbers, punctuation, each with a space before it."""
DIGITS = frozenset("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2".split())
"""Names of the one that isolates each digit, then splits the rest as GPT-2's does."""
WHOLE_WORDS = frozenset("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken".split())
"""Names with which a piece that is a token of the vocabulary is taken whole, whatever the merges would give."""


def correct_pre_tokenizer(tokenizer: "Tokenizer", name: str | None) -> bool:
    """Give a byte-level BPE tokenizer the pre-tokenizer that its GGUF file names.

    Args:
        tokenizer: As transformers built it; changed in place.
        name: `tokenizer.ggml.pre` of the file, if any.

    Returns:
        Whether the name's definition is known; if not, the tokenizer is as transformers built it.

    """
    from tokenizers import pre_tokenizers

    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in DIGITS:
        wanted: Any = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    elif name in GPT2:
        wanted = gpt2
    else:
        wanted = tokenizer.pre_tokenizer if name in _built_by_transformers() else None
    if wanted is None:
        return False
    if settings(tokenizer.pre_tokenizer) != settings(wanted):
        tokenizer.pre_tokenizer = wanted
    if name in WHOLE_WORDS:
        tokenizer.model.ignore_merges = True
    return True


def _built_by_transformers() -> frozenset[str]:
    """Names that this transformers builds with their own regular expressions."""
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:  # an earlier version
        return frozenset()
    return frozenset(GGUF_PRE_TOKENIZER_SPLITS)


def settings(pre_tokenizer: Any) -> Any:
    """A pre-tokenizer's settings in plain values, as tokenizer.json has them; None for none.

    >>> from tokenizers.pre_tokenizers import Digits
    >>> settings(Digits(individual_digits=True))
    {'type': 'Digits', 'individual_digits': True}

    """
    return None if pre_tokenizer is None else json.loads(pre_tokenizer.__getstate__())
