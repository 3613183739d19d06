"""Settings of an ablation run that belong together."""

from dataclasses import dataclass
from typing import Literal

from datamodules import Split


@dataclass(frozen=True)
class StaticSet:
    """The static heads, from the training samples of a score store.

    Attributes:
        top: Size of the static set in which compensated heads are counted (the paper's 20).
        count_empty: Whether steps without any dynamic head count in n, the average number of dynamic heads per step,
            which is how many heads static and random conditions ablate by default.
        split: Which samples of the store are training samples.

    """

    top: int = 20
    count_empty: bool = False
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
