"""Control tokens, such as `<|im_end|>`: tokens of a chat's format, which the text of data must not become."""

import copy
import functools
import re
from typing import TYPE_CHECKING, Any

from extract.prompts.spans import Span, TokenizedText

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PRIVATE_USE = 0xF0000
"""First of the planes whose characters Unicode defines no use for."""


class ControlTokens:
    """Control tokens of a tokenizer: its special tokens, and other added tokens that its chat template names.

    Args:
        tokenizer: A fast tokenizer.

    Attributes:
        tokens: By id.

    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        template = str(tokenizer.chat_template or "")
        self.tokens: dict[int, AddedToken] = {
            number: token
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special or (token.content in template and re.search(r"[^\w\s]", token.content))
        }
        self._ambiguous = {n for n, token in self.tokens.items() if _BYTE.fullmatch(token.content)}
        self._ambiguous.add(tokenizer.unk_token_id)
        self._tokenizer = tokenizer

    def spans(self, found: TokenizedText) -> dict[int, Span]:
        """Characters of the name of each control token of a text, by its position.

        The unknown token and bytes also stand for characters outside of the vocabulary: only their names count.
        """
        spans = {}
        for position in [p for p, token in enumerate(found.ids) if token in self.tokens]:
            (start, end), token = found.offsets[position], found.ids[position]
            name = self.tokens[token].content
            at = found.text.find(name, start, end)  # the token of some names has the whitespace beside them, too
            if at >= 0:
                spans[position] = (at, at + len(name))
            elif start < end and token not in self._ambiguous:
                spans[position] = (start, end)
        return spans

    @functools.cached_property
    def substitutes(self) -> dict[int, str]:
        """Substitute of a control token, by id: as many characters of private use as its name has."""
        return {n: chr(_PRIVATE_USE + i) * len(token.content) for i, (n, token) in enumerate(self.tokens.items())}

    def encode(self, text: str, special: bool) -> tuple[list[int], list[Span]]:
        """Token ids and offsets of a text in which substitutes are control tokens, and their names are text."""
        encoded = self._backend.encode(text, add_special_tokens=special)
        return [self._substituted.get(token, token) for token in encoded.ids], encoded.offsets

    @functools.cached_property
    def _backend(self) -> Any:
        """A copy of the tokenizer that reads names as text, and has a token for each substitute."""
        from tokenizers import AddedToken

        backend = copy.deepcopy(self._tokenizer.backend_tokenizer)
        backend.no_truncation()
        backend.no_padding()
        backend.add_special_tokens([AddedToken(token.content, special=True) for token in self.tokens.values()])
        backend.encode_special_tokens = True  # this one's name for: special tokens are text
        flags = ("single_word", "lstrip", "rstrip", "normalized")
        for number, token in self.tokens.items():
            same = {flag: getattr(token, flag) for flag in flags}
            backend.add_tokens([AddedToken(self.substitutes[number], special=False, **same)])
        return backend

    @functools.cached_property
    def _substituted(self) -> dict[int, int]:
        return {self._backend.token_to_id(text): number for number, text in self.substitutes.items()}
