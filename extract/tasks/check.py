"""Does a task follow its interface? Asked before the model runs, since a task may be a user's own."""

import json
import math
from typing import Any

from extract.errors import UserError
from extract.tasks.base import Sample, Task


def check_task(task: Task) -> None:
    """Refuse a prepared task whose order, first sample, metrics or settings are not what `Task` documents.

    Raises:
        UserError: naming the class, the method and what it must return; also where a method itself raises.

    """
    for check in (_check_order, _check_sample, _check_metrics, _check_settings):
        try:
            fault = check(task)
        except UserError:
            raise
        except Exception as error:
            if type(task).__module__.startswith("extract."):
                raise
            fault = f"{check.__name__.removeprefix('_check_')}: {_origin(error)}"
        if fault:
            raise UserError(f"task {type(task).__name__}: {fault}")


def _first(task: Task) -> Sample:
    return task.sample(task.order()[0])


def _check_order(task: Task) -> str:
    if len(task) < 1:
        return "`len` is 0: there are no samples"
    numbers: list[Any] = list(task.order())
    # Numbers may have gaps: a question that does not fit the context is left out.
    different = {number for number in numbers if type(number) is int and number >= 0}
    if not len(numbers) == len(different) == len(task):
        return f"`order` must list {len(task)} different sample numbers, as many as `len` says"
    return ""


def _check_sample(task: Task) -> str:
    sample: Any = _first(task)
    if not isinstance(sample, Sample):
        return f"`sample` must return an extract.Sample, not {type(sample).__name__}"
    if sample.index != task.order()[0]:
        return f"`sample({task.order()[0]})` must have this number as its index, not {sample.index}"
    if not sample.ids or sample.budget < 1:
        return f"a sample needs prompt tokens and a budget of 1 or more, not {len(sample.ids)} and {sample.budget}"
    for start, end in sample.evidence:
        if not 0 <= start < end <= len(sample.ids):
            return f"evidence {[start, end]} is not a token span of a prompt of {len(sample.ids)} tokens"
    odd = [name for name, value in sample.fields.items() if not isinstance(value, int | float | str)]
    return f"Sample.fields are numbers and strings, unlike {odd[0]!r}" if odd else ""


def _check_metrics(task: Task) -> str:
    sample = _first(task)
    metrics: Any = task.grade(sample, sample.gold)
    if not isinstance(metrics, dict) or not metrics:
        return f"`grade` must return metrics by name, at least one, not {metrics!r}"
    undefined = sample.forced is not None  # an answer that the task gave has no metrics: they are NaN
    odd = [
        name
        for name, value in metrics.items()
        if not isinstance(value, int | float) or not (math.isfinite(value) or (undefined and math.isnan(value)))
    ]
    return f"`grade` must return finite numbers, unlike {odd[0]!r}: {metrics[odd[0]]!r}" if odd else ""


def _check_settings(task: Task) -> str:
    settings: Any = task.describe()
    try:
        json.dumps(settings)
    except (TypeError, ValueError) as error:
        return f"`describe` must return plain values: {error}"
    return "" if isinstance(settings, dict) else f"`describe` must return settings by name, not {settings!r}"


def _origin(error: Exception) -> str:
    """An exception of a user's own code, with the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {error}{where}"
