"""Text of tokens: decoded as a whole, and divided into the characters that each token adds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extract.prompts.spans import Span, TokenizedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


PARTIAL = "\ufffd"
"""What a decoder writes for bytes that make up no character, such as those of a character still incomplete."""


def decode_text(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], special: bool = False) -> str:
    """Text of token ids; special tokens are left out unless `special` keeps them."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False))


def decode_with_offsets(
    tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], special: bool = False
) -> TokenizedText:
    """Text of token ids, and each token's half-open character interval; the intervals are adjacent.

    A token's characters are those by which the decoded prefix grows with it, which holds for any tokenizer; encoding
    the text again might give other tokens. A token that ends within a character gets an empty interval before that
    character, and the token that completes the character gets it.

    Args:
        tokenizer: The tokenizer.
        ids: Tokens.
        special: Keep special tokens as text; otherwise their intervals are empty.

    """
    offsets, end = list[Span](), 0
    start, origin, known = 0, 0, ""  # decoding begins at token `start`, character `origin`, with the text `known`
    settled = 0  # the tokens before this one end with a complete character
    for count in range(1, len(ids) + 1):
        text = decode_text(tokenizer, ids[start:count], special)
        complete = count == len(ids) or not text.endswith(PARTIAL)
        if complete and not text.startswith(known):  # bytes that make up no character changed the text before them
            start, origin, known = 0, 0, ""
            text = decode_text(tokenizer, ids[:count], special)
        stop = max(end, origin + len(text if count == len(ids) else text.rstrip(PARTIAL)))
        offsets.append((end, stop))
        if complete and stop > end:
            # A decoder may drop the space before its first word: one settled piece is decoded with what is new.
            if piece := decode_text(tokenizer, ids[settled:count], special):
                start, origin, known = settled, stop - len(piece), piece
            settled = count
        end = stop
    return TokenizedText(decode_text(tokenizer, ids, special), list(ids), offsets)


def token_texts(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[str]:
    """Text that each token adds, special tokens included; joined, the text of all tokens.

    A token that ends within a character adds nothing, and the token that completes the character adds it. Bytes that
    make up no character are left out at the end.
    """
    pieces = decode_with_offsets(tokenizer, ids, special=True).pieces()
    return [*pieces[:-1], *(piece.rstrip(PARTIAL) for piece in pieces[-1:])]


def first_characters(decoded: TokenizedText) -> list[int]:
    """Position of each token's first character, whitespace before it left out; of whitespace alone, its start.

    >>> first_characters(TokenizedText("Hi  there ", ids=[7, 42, 1], offsets=[(0, 2), (2, 9), (9, 10)]))
    [0, 4, 9]

    """
    found = []
    for start, end in decoded.offsets:
        piece = decoded.text[start:end]
        found.append(start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0))
    return found
