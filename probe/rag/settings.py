"""Settings of Algorithm 1."""

from dataclasses import dataclass

from extract.generation import MaskMode
from extract.utils import PositiveInt, check_fields


@dataclass(frozen=True)
class Decoding:
    """How drafts and rewrites are decoded (Algorithm 1).

    Attributes:
        mask: How hidden tokens are hidden (see `extract.generation.MaskMode`).
        draft_length: Most tokens of a draft, and of a rewritten sentence.
        retries: Retrievals that one sentence may trigger; after these it is kept as it is.
        batch_size: Questions run together, each under all strategies; answers do not depend on it.

    """

    mask: MaskMode = "packed"
    draft_length: PositiveInt = 64
    retries: PositiveInt = 2
    batch_size: PositiveInt = 4

    def __post_init__(self) -> None:
        check_fields(self)
