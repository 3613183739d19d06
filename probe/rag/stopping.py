"""Where a generation ends: after the answer, or after one sentence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from extract.prompts import complete_sentence_end, decode_text
from extract.tasks import AnswerFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def complete_answer_end(text: str, answer_format: AnswerFormat) -> int | None:
    """Character after which the answer in a generated text is complete; None where more of it may follow.

    >>> form = AnswerFormat(marker="So the answer is")
    >>> complete_answer_end("So the answer is Oslo. And", form)
    22
    >>> complete_answer_end("So the answer is Oslo.", form), complete_answer_end("Oslo. And", form)
    (None, None)

    """
    generation = f"{answer_format.opening} {text}"
    marker = re.search(re.escape(answer_format.marker), generation, flags=re.IGNORECASE)
    if marker is None:
        return None
    answer = generation[marker.end() :].lstrip(" :\n\t")
    # An end must be one whatever follows: `150.` may become `150.0`, so the pattern is tried with a digit after it.
    end = re.search(answer_format.end, f"{answer}0")
    return len(text) - len(answer) + end.end() if end and end.end() <= len(answer) else None


@dataclass(frozen=True)
class StoppingCriterion:
    """Ends a generation after the complete answer, or after its first sentence.

    A full stop is known to end a sentence only by what follows it, so one more token is generated than counts.

    Attributes:
        answer_format: How the answer is recognised.
        tokenizer: The model's.
        answer: Tokens of the answer before this generation.
        one_sentence: Whether to stop after one sentence.

    """

    answer_format: AnswerFormat
    tokenizer: "PreTrainedTokenizerBase" = field(compare=False)
    answer: tuple[int, ...]
    one_sentence: bool

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Whether the generated tokens are enough."""
        return self.end(tokens) is not None

    def end(self, tokens: Sequence[int]) -> int | None:
        """Character of the answer, generated tokens included, after which nothing counts; None where all counts."""
        text = decode_text(self.tokenizer, [*self.answer, *tokens])
        ends = [complete_answer_end(text, self.answer_format)]
        if self.one_sentence:
            ends.append(complete_sentence_end(text, len(decode_text(self.tokenizer, self.answer).rstrip())))
        return min((end for end in ends if end is not None), default=None)
