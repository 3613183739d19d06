"""Tokenization with character offsets, in which the text of data never becomes a control token."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from extract.errors import UserError
from extract.prompts.control_tokens import ControlTokens
from extract.prompts.spans import Span, TokenizedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenize_with_offsets(
    tokenizer: "PreTrainedTokenizerBase", text: str, special: bool, data: Sequence[Span] | None = None
) -> TokenizedText:
    """Tokenize `text` with character offsets; a control token's name (`<|im_end|>`) in data is encoded as text.

    Args:
        tokenizer: A fast tokenizer.
        text: The text.
        special: Add the tokenizer's own BOS; an end token is never added, since generation continues the text.
        data: Characters that are data; by default the whole text. Elsewhere, names of control tokens are these.

    Raises:
        UserError: the tokenizer has no tokens for such a name but the control token.

    """
    found, data = _encode(tokenizer, text, special), [(0, len(text))] if data is None else data
    controls = control_tokens(tokenizer, str(tokenizer.chat_template), len(tokenizer))
    if _in_data(controls.spans(found), data):
        found = _with_names_as_text(controls, found, special, data)
    if special and found.ids[-1:] == [tokenizer.eos_token_id] and found.offsets[-1][0] == found.offsets[-1][1]:
        return TokenizedText(text, found.ids[:-1], found.offsets[:-1])
    return found


def named_control_token(tokenizer: "PreTrainedTokenizerBase", text: str) -> str | None:
    """Name of a control token in a text; None without one."""
    found = _encode(tokenizer, text, special=False)
    controls = control_tokens(tokenizer, str(tokenizer.chat_template), len(tokenizer))
    return next((controls.tokens[found.ids[position]].content for position in controls.spans(found)), None)


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str, special: bool) -> TokenizedText:
    encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    return TokenizedText(text, list(encoded["input_ids"]), [(int(a), int(b)) for a, b in encoded["offset_mapping"]])


@functools.lru_cache(maxsize=4)
def control_tokens(tokenizer: "PreTrainedTokenizerBase", *key: object) -> ControlTokens:
    """Control tokens of a tokenizer, found once.

    Args:
        tokenizer: The tokenizer.
        *key: What they depend on.

    """
    del key
    return ControlTokens(tokenizer)


def _in_data(spans: dict[int, Span], data: Sequence[Span]) -> list[int]:
    """Positions of the control tokens that share a character with data."""
    return [p for p, (a, b) in spans.items() if any(a < end and b > start for start, end in data)]


def _with_names_as_text(
    controls: ControlTokens, found: TokenizedText, special: bool, data: Sequence[Span]
) -> TokenizedText:
    """Tokenize again: control tokens outside of data become substitutes, and all names are then text."""
    spans, letters = controls.spans(found), list(found.text)
    named = _in_data(spans, data)
    start, end = spans[named[0]]
    kept = {p: spans[p] for p in spans.keys() - set(named)}
    for position, (a, b) in kept.items():
        letters[a:b] = controls.substitutes[found.ids[position]][: b - a]
    again = TokenizedText(found.text, *controls.encode("".join(letters), special))
    remaining = {span: again.ids[p] for p, span in controls.spans(again).items()}
    same = remaining == {span: found.ids[p] for p, span in kept.items()}
    if not same or len(letters) != len(found.text) or set(found.text) & set("".join(controls.substitutes.values())):
        where = " ".join(found.text[max(0, start - 30) : end + 30].split())
        raise UserError(
            f"'{found.text[start:end]}' in the text of data (… {where} …) is a control token of the model that its "
            "tokenizer cannot encode as text; remove it"
        )
    return again
