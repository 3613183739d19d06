"""Work of rank 0 whose outcome all processes share."""

from typing import Any

from lightning import Trainer

from extract.errors import UserError


def on_rank_zero(trainer: Trainer, action: Any) -> Any:
    """Run on rank 0 and share the outcome; an error there is raised on every rank, so that none waits for ever."""
    outcome: tuple[Any, str | None] = (None, None)
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
    return value
