"""Work that processes and machines divide among them, and work of rank 0 whose outcome all share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from lightning import Trainer

from extract.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class WorkShare:
    """Share of numbered work that one process or machine does: every `of`-th item, from the `number`-th on.

    >>> share = WorkShare.parse("2/4", "--share")
    >>> [item for item in range(9) if share.holds(item)]
    [1, 5]

    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str, setting: str) -> "WorkShare":
        """A share given as text.

        Args:
            text: Its number and how many there are, such as `2/4`.
            setting: Name of the setting, for the message.

        Raises:
            UserError: it is no such text.

        """
        number, _, of = text.partition("/")
        digits = all(part.isascii() and part.isdecimal() and len(part) < 7 for part in (number, of))
        if not digits or not 1 <= int(number) <= int(of):
            raise UserError(f"{setting} {text}: the number of this share and how many there are, such as 2/4")
        return cls(int(number), int(of))

    def holds(self, item: int) -> bool:
        """Whether an item is in the share, by its number from 0 on."""
        return item % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def on_rank_zero(trainer: Trainer, action: Callable[[], T]) -> T:
    """Run an action on rank 0 and return its outcome on every rank.

    Raises:
        UserError: the action failed; raised on every rank, so that none waits forever. Rank 0 keeps its own exception.

    """
    outcome: tuple[T | None, str | None] = (None, None)
    failure: Exception | None = None
    if trainer.is_global_zero:
        try:
            outcome = (action(), None)
        except Exception as error:
            failure, outcome = error, (None, str(error))
    value, error_text = trainer.strategy.broadcast(outcome)
    if failure is not None:
        raise failure
    if error_text is not None:
        raise UserError(error_text)
    return cast(T, value)  # None only where the action returns None
