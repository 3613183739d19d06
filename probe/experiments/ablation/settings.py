"""Settings of an ablation run that belong together."""

from dataclasses import dataclass
from typing import Literal

from datamodules import Split
from extract.utils import PositiveInt

NumberRule = Literal["ablated", "training", "training_non_empty"]


@dataclass(frozen=True)
class StaticSet:
    """The static heads, and how many heads static and random conditions ablate.

    Attributes:
        top: Size of the static set in which compensated heads are counted (the paper's 20).
        n: The average number of heads per step that conditions without a given number ablate. `ablated`: of
            those that the condition `dynamic` ablates, on the prompts of the run (the paper's). `training`: of the
            dynamic heads at the store's training steps, without ablation; `training_non_empty`: at those with any.
        split: Which samples of the store are training samples.

    """

    top: PositiveInt = 20
    n: NumberRule = "ablated"
    split: Split = Split()  # noqa: RUF009 (frozen)


@dataclass(frozen=True)
class Intervention:
    """What the ablated pass of a step changes.

    Attributes:
        operator: An ablated head's output before the output projection: `zero`, or its `mean` over the prompt.
        keep: Whose keys and values of the step stay in the KV cache: those of the `clean` or of the `masked` pass.

    """

    operator: Literal["zero", "mean"] = "zero"
    keep: Literal["clean", "masked"] = "clean"
