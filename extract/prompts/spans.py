"""From texts to tokens: chat templates, and token spans found by character offsets."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from extract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Span = tuple[int, int]
"""Half-open interval of token positions, or of characters."""


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt: its text, its token ids, and each token's half-open character interval."""

    text: str
    ids: list[int]
    offsets: list[Span]


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, special: bool) -> Prompt:
    """Tokenize `text` with offsets; `special` adds the tokenizer's own BOS, but no end token: the text goes on."""
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), [(int(a), int(b)) for a, b in encoded["offset_mapping"]]
    if special and ids[-1:] == [tokenizer.eos_token_id] and offsets[-1][0] == offsets[-1][1]:
        ids, offsets = ids[:-1], offsets[:-1]
    return Prompt(text, ids, offsets)


def locate(prompt: Prompt, text: str) -> Span:
    """Token span of `text`, which must stand in the prompt exactly once.

    A token belongs to the span if it shares a character with it. Space around the text may share its tokens;
    another character may not, since the span would then hold what is not part of the text.

    Raises:
        UserError: the text is missing, stands there more than once, or shares a token with its surroundings.

    """
    count = prompt.text.count(text)
    if count != 1:
        raise UserError(f"'{text}' stands {count} times in its prompt instead of once: its tokens are ambiguous")
    start = prompt.text.index(text)
    end = start + len(text)
    first, stop = tokens_between(prompt, start, end)
    extra = prompt.text[prompt.offsets[first][0] : start] + prompt.text[end : prompt.offsets[stop - 1][1]]
    if extra.strip():
        raise UserError(
            f"'{text}' shares a token with the characters '{extra.strip()}' next to it, so it has no exact span"
        )
    return first, stop


def tokens_between(prompt: Prompt, start: int, end: int) -> Span:
    """Token span of the characters from `start` to `end`: every token that shares one of them.

    Raises:
        UserError: no token does.

    """
    inside = [i for i, (a, b) in enumerate(prompt.offsets) if a < end and b > start]
    if not inside:
        text = prompt.text[start:end]
        raise UserError(f"no token covers '{text}' in its prompt: the tokenizer's offsets cannot place it")
    return inside[0], inside[-1] + 1
