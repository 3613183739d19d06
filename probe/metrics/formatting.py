"""Metrics as text: a value and its 95 % interval."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its 95 % confidence interval.

    Attributes:
        value: Point estimate.
        low, high: Bounds of the interval; None where there is none.
        n: Units that it was estimated from (prompts, samples); None where it is not counted.

    >>> Estimate(0.8293, 0.8184, 0.84).text(digits=4, interval_digits=3)
    '0.8293 [0.818, 0.840]'
    >>> Estimate(0.8293).text()
    '0.829'

    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Estimate":
        """The estimate of a `{"value", "low", "high", "n"}` record of results.json; all but `value` may be missing.

        >>> Estimate.of({"value": 0.5, "low": 0.4, "high": 0.6, "depth": 3})
        Estimate(value=0.5, low=0.4, high=0.6, n=None)

        """
        return cls(record["value"], record.get("low"), record.get("high"), record.get("n"))

    def as_dict(self) -> dict[str, float | None]:
        """`value`, `low` and `high` as results.json records them, and `n` where it is counted.

        >>> Estimate(0.5, 0.4, 0.6).as_dict()
        {'value': 0.5, 'low': 0.4, 'high': 0.6}

        """
        record = asdict(self)
        return record if self.n is not None else {name: record[name] for name in ("value", "low", "high")}

    def value_text(self, digits: int = 3, sign: bool = False) -> str:
        """The value alone; `sign` writes a plus, too, as differences have it.

        >>> Estimate(0.25).value_text(2, sign=True)
        '+0.25'

        """
        return _number(self.value, digits, sign)

    def interval_text(self, digits: int = 3, sign: bool = False, leading_zero: bool = True) -> str:
        """The interval in brackets; empty where there is none (None, or NaN for too few units).

        >>> Estimate(0.5, 0.4, 0.6).interval_text(2), Estimate(0.5, 0.4, 0.6).interval_text(2, leading_zero=False)
        ('[0.40, 0.60]', '[.40, .60]')

        """
        if self.low is None or self.high is None or math.isnan(self.low + self.high):
            return ""
        low, high = (_number(bound, digits, sign) for bound in (self.low, self.high))
        return f"[{low}, {high}]" if leading_zero else f"[{low.removeprefix('0')}, {high.removeprefix('0')}]"

    def text(
        self, digits: int = 3, interval_digits: int | None = None, sign: bool = False, leading_zero: bool = True
    ) -> str:
        """Value and interval.

        Args:
            digits: Decimals of the value.
            interval_digits: Decimals of the bounds; by default as many.
            sign: Write a plus before positive numbers, as differences have it.
            leading_zero: Whether bounds below 1 keep the zero before the point; narrow tables leave it out.

        >>> Estimate(-0.0312, -0.07, 0.008).text(3, 2, sign=True)
        '-0.031 [-0.07, +0.01]'

        """
        bounds = self.interval_text(digits if interval_digits is None else interval_digits, sign, leading_zero)
        return f"{self.value_text(digits, sign)} {bounds}".rstrip()

    def forms(
        self, digits: int = 3, interval_digits: int | None = None, sign: bool = False, leading_zero: bool = True
    ) -> tuple[str, str, str]:
        """Value and interval for a table, from the longest form to the shortest: `text`, shorter bounds, no interval.

        >>> Estimate(0.8293, 0.8184, 0.84).forms(digits=4, interval_digits=3)
        ('0.8293 [0.818, 0.840]', '0.8293 [.82, .84]', '0.8293')

        """
        bounds = digits if interval_digits is None else interval_digits
        full, short = self.text(digits, bounds, sign, leading_zero), self.text(digits, min(bounds, 2), sign, False)
        return full, short, self.value_text(digits, sign)


def _number(value: float, digits: int, sign: bool) -> str:
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
