"""Work of rank 0 whose outcome all processes share."""

from collections.abc import Callable
from typing import TypeVar, cast

from lightning import Trainer

from extract.errors import UserError

T = TypeVar("T")


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
