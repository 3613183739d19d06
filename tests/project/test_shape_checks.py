"""Wrong shapes are found in the tests: in short ones at once, in long ones after some calls."""

import torch
from jaxtyping import TypeCheckError

from extract.heads import HeadGrid
from probe.models.losses import masked_mse
from tests.helpers.shape_checks import EVERY, FIRST, CallCount

ROWS = torch.zeros(1, 2)


def wrong() -> None:
    """A call with shapes that differ; by broadcasting it would succeed."""
    masked_mse(ROWS, torch.zeros(2))


def found(calls: int) -> int:
    """How many of some wrong calls are found."""
    errors = 0
    for _ in range(calls):
        try:
            wrong()
        except TypeCheckError:
            errors += 1
    return errors


def test_a_wrong_shape_is_found_at_every_call_of_a_short_test() -> None:
    assert found(FIRST) == FIRST


def test_a_long_test_finds_it_within_some_calls() -> None:
    for _ in range(FIRST):
        masked_mse(ROWS, ROWS)
    assert found(3 * EVERY) == 3


def test_calls_of_other_functions_do_not_count(spared_checks: CallCount) -> None:
    grid = HeadGrid(2, 3)
    for _ in range(FIRST + 1):
        grid.mask([(0, 1)])
    assert found(1) == 1
    assert len(spared_checks.calls) >= 2
