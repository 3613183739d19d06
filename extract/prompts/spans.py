"""Tokenized text: token ids with the characters that each covers, and token spans found by character offsets."""

from dataclasses import dataclass

from extract.errors import UserError

Span = tuple[int, int]
"""Half-open interval of token positions, or of characters."""


@dataclass(frozen=True)
class TokenizedText:
    """A text, its token ids, and each token's half-open character interval.

    >>> text = TokenizedText("Hi there", ids=[7, 42], offsets=[(0, 2), (2, 8)])
    >>> text.pieces()
    ['Hi', ' there']

    """

    text: str
    ids: list[int]
    offsets: list[Span]

    def pieces(self) -> list[str]:
        """The characters of each token."""
        return [self.text[start:end] for start, end in self.offsets]


def find_token_span(prompt: TokenizedText, text: str) -> Span:
    """Token span of `text`, which must occur in the prompt exactly once.

    A token belongs to the span if it shares a character with it. Whitespace around the text may share its tokens;
    another character may not, since the span would then hold what is not part of the text.

    Raises:
        UserError: the text is missing, occurs more than once, or shares a token with its surroundings.

    >>> prompt = TokenizedText("Key: 7f3.", ids=[5, 9, 8, 2], offsets=[(0, 4), (4, 6), (6, 8), (8, 9)])
    >>> find_token_span(prompt, "7f3")
    (1, 3)

    """
    count = prompt.text.count(text)
    if count != 1:
        raise UserError(f"'{text}' occurs {count} times in its prompt instead of once: its tokens are ambiguous")
    start = prompt.text.index(text)
    end = start + len(text)
    first, stop = tokens_between(prompt, start, end)
    extra = prompt.text[prompt.offsets[first][0] : start] + prompt.text[end : prompt.offsets[stop - 1][1]]
    if extra.strip():
        raise UserError(
            f"'{text}' shares a token with the characters '{extra.strip()}' next to it, so it has no exact span"
        )
    return first, stop


def tokens_between(prompt: TokenizedText, start: int, end: int) -> Span:
    """Token span of the characters from `start` to `end`: every token that shares one of them.

    Raises:
        UserError: no token does.

    >>> tokens_between(TokenizedText("Hi there", ids=[7, 42], offsets=[(0, 2), (2, 8)]), 3, 8)
    (1, 2)

    """
    inside = [i for i, (a, b) in enumerate(prompt.offsets) if a < end and b > start]
    if not inside:
        text = prompt.text[start:end]
        raise UserError(f"no token covers '{text}' in its prompt: the tokenizer's offsets cannot place it")
    return inside[0], inside[-1] + 1
