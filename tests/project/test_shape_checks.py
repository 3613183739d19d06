"""Wrong shapes are found in the tests: in short ones at once, in long ones after some calls."""

import pytest
import torch
from jaxtyping import TypeCheckError

from probe.models.losses import masked_mse
from tests.helpers.shape_checks import EVERY, FIRST, CallCount

ROWS = torch.zeros(1, 2)


def wrong() -> None:
    """A call with shapes that differ; by broadcasting it would succeed."""
    masked_mse(ROWS, torch.zeros(2))


def test_a_wrong_shape_is_found_at_the_first_call_and_at_every_one_of_a_short_test() -> None:
    for _ in range(100):
        with pytest.raises(TypeCheckError):
            wrong()


def test_a_long_test_finds_it_within_some_calls(spared_checks: CallCount) -> None:
    spared_checks.calls = FIRST
    found = 0
    for _ in range(3 * EVERY):
        try:
            wrong()
        except TypeCheckError:
            found += 1
    assert found == 3


def test_each_test_counts_from_its_start(spared_checks: CallCount) -> None:
    assert spared_checks.calls == 0
    masked_mse(ROWS, ROWS)
    assert spared_checks.calls > 0
