"""Small tokenizers of each kind, trained here on Python's own prose."""

import string
from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from extract.tasks.haystack import load_haystack

BOS, EOS = "<s>", "</s>"
SPECIAL = [BOS, EOS, "<unk>"]
EXTRA = "Grüße, Čeština; 漢字 と かな 🙂 e\u0301 naïve — “quoted” 0123456789-abcdef. "
BYTES = [f"<0x{number:02X}>" for number in range(256)]


def _texts() -> list[str]:
    return [load_haystack("pydoc")[:60_000], EXTRA * 3]


def byte_level() -> Tokenizer:
    """As Llama-3's and Qwen's: bytes, merged; a character may take several tokens, a token part of one."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        _texts(),
        trainers.BpeTrainer(vocab_size=1500, special_tokens=SPECIAL, show_progress=False, initial_alphabet=alphabet),
    )
    return made


def byte_level_prefixed() -> Tokenizer:
    """As GPT-2's with a space in front, offsets trimmed of spaces."""
    made = byte_level()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    return made


def sentencepiece() -> Tokenizer:
    """As Llama-2's: a space before the text, spaces within tokens, bytes for characters outside the vocabulary."""
    return _metaspace(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True), whole=True)


def metaspace() -> Tokenizer:
    """As Mistral's and Gemma's: the same by words, with a space in front of the first one alone."""
    return _metaspace(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True), whole=False)


def _metaspace(model: Any, whole: bool) -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=[*SPECIAL, *BYTES], limit_alphabet=80, show_progress=False
    )
    made.train_from_iterator(_texts()[:1], trainer)
    if whole:
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return made


def unigram() -> Tokenizer:
    """As T5's and XLM's: the likeliest pieces of words, normalised by NFKC."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1500,
        special_tokens=SPECIAL,
        unk_token="<unk>",
        initial_alphabet=[*string.printable, *EXTRA],
        show_progress=False,
    )
    made.train_from_iterator(_texts(), trainer)
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    made.__name__: made for made in (byte_level, byte_level_prefixed, sentencepiece, metaspace, unigram)
}


def fast(made: Tokenizer, template: str | None = None) -> PreTrainedTokenizerFast:
    """As a fast tokenizer of transformers, which adds a BOS before a text."""
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    bos = [(BOS, made.token_to_id(BOS))]
    begin = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=bos)
    made.post_processor = begin if made.post_processor is None else processors.Sequence([made.post_processor, begin])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=BOS, eos_token=EOS, unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer
