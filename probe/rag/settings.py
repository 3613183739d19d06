"""Settings of Algorithm 1."""

from dataclasses import dataclass

from extract.errors import UserError
from extract.generation import MaskMode


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
    draft_length: int = 64
    retries: int = 2
    batch_size: int = 4

    def check(self) -> None:
        """Bad settings raise a UserError."""
        if min(self.draft_length, self.retries, self.batch_size) < 1:
            raise UserError(f"rag decoding: draft_length, retries and batch_size of at least 1, not {self}")
