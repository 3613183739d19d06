"""Values with intervals as text: the numbers are read back from it."""

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from probe.metrics import Estimate

numbers = st.floats(-5, 5)


@example(-0.0, -0.0, -0.0, 1, 1, False, True)
@given(numbers, numbers, numbers, st.integers(1, 5), st.integers(1, 5), st.booleans(), st.booleans())
def test_the_text_holds_the_rounded_numbers(
    value: float, low: float, high: float, digits: int, interval_digits: int, sign: bool, leading_zero: bool
) -> None:
    text = Estimate(value, low, high).text(digits, interval_digits, sign, leading_zero)
    found = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", text)
    assert found is not None
    assert float(found[1]) == pytest.approx(value, abs=0.51 * 10**-digits)
    assert [float(found[2]), float(found[3])] == pytest.approx([low, high], abs=0.51 * 10**-interval_digits)
    assert [len(number.partition(".")[2]) for number in found.groups()] == [digits, interval_digits, interval_digits]
    assert sign == all(number[0] in "+-" for number in found.groups()) or all(
        math.copysign(1, number) < 0
        for number in (value, low, high)  # a negative zero has its sign, too
    )
    assert leading_zero or not any(number.startswith("0.") for number in found.groups()[1:])


@given(numbers, st.none() | numbers, st.none() | st.integers(0, 9))
def test_a_record_of_results_is_the_estimate_again(value: float, bound: float | None, n: int | None) -> None:
    estimate = Estimate(value, bound, bound, n)
    assert Estimate.of(estimate.as_dict()) == estimate
    assert ("n" in estimate.as_dict()) == (n is not None)


def test_without_an_interval_the_value_stands_alone() -> None:
    assert Estimate(0.5).text(2) == Estimate.of({"value": 0.5, "low": None, "high": None}).text(2) == "0.50"
    assert Estimate(0.5).interval_text() == ""
