"""Settings of Algorithm 1."""

from dataclasses import asdict, dataclass
from typing import Any

from extract.attention import Slots
from extract.generation import MaskMode
from extract.utils import PositiveInt, check_fields


@dataclass(frozen=True)
class Decoding:
    """How drafts and rewrites are decoded (Algorithm 1).

    Attributes:
        mask: How hidden tokens are hidden (see `extract.generation.MaskMode`).
        draft_length: Most tokens of a draft, and of a rewritten sentence.
        retries: Retrievals that one sentence may trigger; after these it is kept as it is.
        batch_size: Questions of a batch, each under all strategies; a run that is stopped finishes it first.
        slots: Questions of a batch that run together, the next in place of one that has ended; `auto`: as many as
            memory holds; None: all. Answers depend neither on it nor on `batch_size`.

    """

    mask: MaskMode = "packed"
    draft_length: PositiveInt = 64
    retries: PositiveInt = 2
    batch_size: PositiveInt = 4
    slots: Slots = None

    def __post_init__(self) -> None:
        check_fields(self)

    def describe(self) -> dict[str, Any]:
        """The settings that determine answers and batches."""
        return {name: value for name, value in asdict(self).items() if name != "slots"}
