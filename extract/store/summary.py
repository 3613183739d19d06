"""Summary of a score store: metrics of the answers, dynamic heads a step, answers that ended at their budget."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from extract.intervals import Interval, bootstrap_mean, wilson
from extract.scores import REASONING_THRESHOLD, is_dynamic
from extract.store.arrow_shards import column_matrix, read_shard

LAST_COLUMN = "unscored"
"""Column of `samples` after which the metrics of the answers come."""


def summarise(store: Path, shards: Sequence[Mapping[str, Any]], ends: Collection[int] | None) -> dict[str, Any]:
    """Summary of a store, read shard by shard, in plain values.

    `metrics`: mean of each metric of the answers, with its 95 % interval (Wilson's of 0/1 values, else the bootstrap
    over samples) and the number n of samples that have it. `dynamic_heads`: mean number of dynamic heads a step, over
    all steps by Eq. 1, and over those with a score by Eq. 2. `at_budget`: share of answers without an end token, which
    ended at their budget.

    Args:
        store: The folder.
        shards: Entries of its shards, as the manifest lists them.
        ends: End tokens of the LLM; None where answers were given (teacher forcing), and so have no share.

    """
    metrics: dict[str, list[float]] = {}
    heads = {"copy_paste": _Mean(), "reasoning": _Mean()}
    cut = list[bool]()
    for samples, steps in _tables(store, shards):
        for name in metric_columns(samples):
            metrics.setdefault(name, []).extend(samples[name].to_numpy(zero_copy_only=False).tolist())
        for name, mean in heads.items():
            mean.add(_dynamic_heads(column_matrix(steps[name]), name))
        if ends is not None:
            cut += _without_end(samples, steps, ends)
    return {
        "metrics": {name: estimate(values) for name, values in metrics.items()},
        "dynamic_heads": {
            "copy_paste": heads["copy_paste"].as_dict(),
            "reasoning": {**heads["reasoning"].as_dict(), "threshold": REASONING_THRESHOLD},
        },
        "at_budget": estimate(cut),
    }


def _tables(store: Path, shards: Iterable[Mapping[str, Any]]) -> Iterator[tuple[pa.Table, pa.Table]]:
    for shard in shards:
        yield read_shard(store / shard["samples"]["file"]), read_shard(store / shard["steps"]["file"])


def metric_columns(samples: pa.Table) -> list[str]:
    """Number columns after `LAST_COLUMN`: the metrics of the answers.

    >>> metric_columns(pa.table({"length": [50], "unscored": [0], "em": [1.0], "f1": [1.0]}))
    ['em', 'f1']

    """
    names = samples.column_names
    after = names[names.index(LAST_COLUMN) + 1 :] if LAST_COLUMN in names else []
    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
    return [name for name in after if any(is_kind(samples.schema.field(name).type) for is_kind in kinds)]


class _Mean:
    """Mean number of heads over steps, added up shard by shard."""

    def __init__(self) -> None:
        self.heads = self.steps = 0

    def add(self, counts: NDArray[np.int64]) -> None:
        """Add the numbers of heads of some steps."""
        self.heads += int(counts.sum())
        self.steps += len(counts)

    def as_dict(self) -> dict[str, Any]:
        """Value and number of steps; the value is null without any."""
        return {"value": self.heads / self.steps if self.steps else None, "steps": self.steps}


def _dynamic_heads(scores: NDArray[Any], target: Any) -> NDArray[np.int64]:
    """Number of dynamic heads of each step that has a score."""
    scored = scores[np.isfinite(scores).any(axis=1)]
    return np.asarray(is_dynamic(scored, target).sum(axis=1))


def _without_end(samples: pa.Table, steps: pa.Table, ends: Collection[int]) -> list[bool]:
    """Whether each answer's last token is no end token; a sample's rows are adjacent, its last step last."""
    number = steps["sample"].to_numpy()
    last = np.flatnonzero(np.append(number[1:] != number[:-1], True)) if len(number) else np.zeros(0, int)
    ended = dict(zip(number[last].tolist(), np.isin(steps["token"].to_numpy()[last], list(ends)).tolist(), strict=True))
    return [not ended.get(sample, False) for sample in samples["sample"].to_pylist()]


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """Mean with its 95 % interval and n: Wilson's where all values are 0 or 1, else the bootstrap; NaN is left out.

    >>> {name: round(value, 3) for name, value in estimate([1.0, 1.0, 0.0, float("nan")]).items()}
    {'value': 0.667, 'low': 0.208, 'high': 0.939, 'n': 3}

    """
    known = np.asarray([value for value in values if value is not None and math.isfinite(value)], np.float64)
    share = bool(np.isin(known, (0.0, 1.0)).all())
    low, high = wilson(int(known.sum()), len(known)) if share else bootstrap_mean(known)
    bounds = {"low": _plain(low), "high": _plain(high)}
    return {"value": float(known.mean()) if len(known) else None, **bounds, "n": len(known)}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of a summary as text; what has no value is left out.

    >>> share = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 12}
    >>> heads = {"copy_paste": {"value": 3.9, "steps": 80}, "reasoning": {"value": None, "steps": 0, "threshold": 0.5}}
    >>> summary_rows({"metrics": {"em": share}, "dynamic_heads": heads, "at_budget": share})[:2]
    [('em', '0.250 [0.100, 0.500], n = 12'), ('dynamic heads a step, Eq. 1', '3.90, of 80 steps')]

    """
    eq1, eq2 = summary["dynamic_heads"]["copy_paste"], summary["dynamic_heads"]["reasoning"]
    heads = [("Eq. 1", eq1), (f"Eq. 2 ≥ {eq2['threshold']:g}", eq2)]
    return [
        *((name, _text(one)) for name, one in summary["metrics"].items() if one["value"] is not None),
        *(
            (f"dynamic heads a step, {how}", f"{one['value']:.2f}, of {one['steps']:,} steps")
            for how, one in heads
            if one["value"] is not None
        ),
        *(("answers cut at the budget", _text(one)) for one in [summary["at_budget"]] if one["value"] is not None),
    ]


def _text(one: Mapping[str, Any]) -> str:
    bounds: Interval | None = None if one["low"] is None else (one["low"], one["high"])
    interval = f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
    return f"{one['value']:.3f}{interval}, n = {one['n']:,}"
