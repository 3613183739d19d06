"""Forced opening: an answer's first words, appended to a generation that ended without an answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from extract.prompts.detokenize import decode_text
from extract.prompts.tokenization import tokenize_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ForcedOpening:
    """Continues a generation that ended without an answer in the form wanted, as DRAGIN's evaluation does.

    Its end token is dropped, the opening ("So the answer is") is appended, and the model continues greedily. Source:
    Su et al. 2024, code of the evaluation; it samples as the model's generation config says, and without a context.

    Attributes:
        tokenizer: The model's.
        text: The opening that a generation lacks; empty where it lacks none.
        limit: Most tokens generated after the opening.

    """

    tokenizer: "PreTrainedTokenizerBase" = field(compare=False)
    text: Callable[[str], str]
    limit: int

    def tokens(self, generated: Sequence[int]) -> list[int]:
        """Tokens of the opening, to append to generated tokens without an end token; none where it is not forced.

        The generated tokens stay as they are, so that their cached keys can be reused.
        """
        said = decode_text(self.tokenizer, generated)
        if not (opening := self.text(said)):
            return []
        space = " " if said and not said[-1].isspace() else ""
        # A SentencePiece tokenizer puts a space before a text of its own: what is right is what decodes to the text.
        spellings = [self._encoded(f"{space}{opening}"), self._encoded(opening)]
        wanted = f"{said}{space}{opening}"
        fitting = (ids for ids in spellings if decode_text(self.tokenizer, [*generated, *ids]) == wanted)
        return next(fitting, spellings[0])

    def _encoded(self, text: str) -> list[int]:
        return tokenize_with_offsets(self.tokenizer, text, special=False).ids
