"""Settings of a diagnosis."""

from dataclasses import dataclass
from typing import Annotated

from extract.utils import PositiveFloat, PositiveInt, Range, Seed, ShareBelowOne, check_fields

Tail = Annotated[float, Range(0, 0.5)]


@dataclass(frozen=True)
class TrainingPrompts:
    """Prompts whose solved answers give the thresholds; causes are counted and tested on the others.

    Attributes:
        share: Expected share of all prompts, sampled by content.
        seed: Of the sample.
        tail: Share of solved answers beyond a threshold.

    """

    share: ShareBelowOne = 0.3
    seed: Seed = 0
    tail: Tail = 0.05

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Intervening:
    """Interventions at the critical token of failed answers that are held out.

    Attributes:
        heads: Heads whose outputs are amplified: those that write most of the evidence to the right token.
        factor: Of their outputs.
        seed: Of the random segment and the random heads to compare with.

    """

    heads: PositiveInt = 10
    factor: PositiveFloat = 3.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
