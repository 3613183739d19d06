"""Generated tokens as text, and the characters that each token stands for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extract.prompts.spans import Prompt, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


PARTIAL = "\ufffd"
"""What a decoder writes for a character whose bytes are not all there yet."""


def spell(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> Prompt:
    """The text of generated tokens, and each token's half-open character interval.

    Decoded prefix by prefix, which holds for any tokenizer; encoding the text again might give other tokens. A token
    that ends within a character gets an empty interval at that character; the one that completes it has it.
    """
    offsets, end = list[Span](), 0
    for count in range(1, len(ids) + 1):
        text = read(tokenizer, ids[:count])
        stop = len(text if count == len(ids) else text.rstrip(PARTIAL))
        offsets.append((end, max(end, stop)))
        end = max(end, stop)
    return Prompt(read(tokenizer, ids), list(ids), offsets)


def read(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of generated tokens, special ones left out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def printable(text: str, keep: str = "") -> str:
    """Text of data for a screen or a picture: control characters, but those to keep, become a mark."""
    return "".join(letter if letter.isprintable() or letter in keep else PARTIAL for letter in text)


def first_characters(spelled: Prompt) -> list[int]:
    """Where each token's first character stands, space before it left out; of a token of space alone, its start."""
    found = []
    for start, end in spelled.offsets:
        piece = spelled.text[start:end]
        found.append(start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0))
    return found


CONTEXT = 4
"""Tokens before a token that its text may depend on: bytes of one character, or a space that the first word drops."""


def token_texts(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[str]:
    """The text that each token adds; joined they are the text of all, without bytes that make up no character.

    A token that ends within a character adds nothing, and the one that completes it adds the character.
    """
    if not len(ids):
        return []  # batch_decode takes an empty list for one empty text
    windows = [list(ids[max(0, end - 1 - CONTEXT) : end]) for end in range(1, len(ids) + 1)]
    options: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    with_it = tokenizer.batch_decode(windows, **options)
    before = tokenizer.batch_decode([window[:-1] for window in windows], **options)
    found = []
    for whole, part in zip(with_it, before, strict=True):
        known = part.rstrip("�")
        found.append(whole.rstrip("�")[len(known) :] if whole.startswith(known) else whole)
    return found
