"""Answers of ablation decoding while they are generated, and all of them as its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from extract.generation.ablation.output import AblatedGenerations
from extract.generation.greedy import without_end
from extract.prompts import ForcedOpening
from extract.tasks import Sample


@dataclass(eq=False)
class Answer:
    """The answer to a prompt under a condition, so far; or what continues it after a forced opening.

    Attributes:
        sample: The prompt.
        condition: Number of the condition.
        tokens: All tokens after the prompt, a forced opening included.
        begun: How many of them were there when its generation began: none, or answer and opening.
        limit: Most tokens to generate after these.
        held: How many tokens have their keys cached, beginning with the prompt's last one.
        place: Of the prompt among those decoded together.
        row: In the batch that was decoded last; None: in none yet.
        ended: Whether the last token is generated.
        steps: Tokens of its steps, and heads before, ablated and after, of each batch in which it was decoded.
        continuation: Tokens after a forced opening, without an end token, once they have ended.

    """

    sample: Sample
    condition: int
    tokens: list[int] = field(default_factory=list)
    begun: int = 0
    limit: int = 0
    held: int = 0
    place: int = 0
    row: int | None = None
    ended: bool = False
    steps: list[tuple[Tensor, ...]] = field(default_factory=list)
    continuation: list[int] | None = None

    def __post_init__(self) -> None:
        self.limit = self.sample.budget

    @property
    def step(self) -> int:
        """Number of its next step."""
        return len(self.tokens) - self.begun

    @property
    def left(self) -> int:
        """Most tokens to come."""
        return self.limit - self.step

    def add(self, steps: tuple[Tensor, ...], ended: bool) -> None:
        """Add steps: their tokens, and their heads."""
        if not self.begun:  # what follows an opening is no step of the answer
            self.steps.append(steps)
        self.tokens += steps[0].tolist()
        self.held, self.ended = len(self.tokens), ended

    def force(self, opening: ForcedOpening | None, ends: Sequence[int]) -> None:
        """Continue an answer that has ended, if it needs the opening; or keep what continued it."""
        said = without_end(self.tokens[self.begun :], ends)
        if self.begun:
            self.continuation = said
        elif opening is not None and (forced := opening.tokens(said)):
            self.tokens = [*said, *forced]
            self.begun, self.limit, self.ended = len(self.tokens), opening.limit, False


def collected(answers: Sequence[Answer], conditions: int) -> AblatedGenerations:
    """All answers, a sample's conditions side by side."""
    columns = [[torch.cat(parts) for parts in zip(*answer.steps, strict=True)] for answer in answers]
    lengths = torch.tensor([len(tokens) for tokens, *_ in columns])
    padded = [pad_sequence(list(column), batch_first=True) for column in zip(*columns, strict=True)]
    grouped: list[Any] = [column.unflatten(0, (-1, conditions)) for column in (lengths, *padded)]
    forced = [answer.continuation for answer in answers]
    by_sample = [forced[first : first + conditions] for first in range(0, len(forced), conditions)]
    return AblatedGenerations(*[*grouped, by_sample])
