"""Shapes and dtypes in signatures, checked at every call of short tests and at a part of the calls of long ones.

A check takes longer than many a call. A loop of thousands of steps repeats the same calls: after `FIRST` checks of a
test, every `EVERY`th call is checked. The number is prime, so that it falls on another function each time around.
"""

from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest

FIRST, EVERY = 500, 13


class CallCount:
    """In place of jaxtyping's switch, which it reads at each call: whether this call is left unchecked."""

    def __init__(self) -> None:
        self.calls = 0

    def __get__(self, config: Any, kind: type) -> bool:
        self.calls += 1
        return self.calls > FIRST and self.calls % EVERY != 0


@pytest.fixture(autouse=True)
def spared_checks() -> Iterator[CallCount]:
    """Count each test's calls from its start."""
    count = CallCount()
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(jaxtyping.config, "jaxtyping_disable")
        patch.setattr(type(jaxtyping.config), "jaxtyping_disable", count, raising=False)
        yield count
