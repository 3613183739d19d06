"""Shapes and dtypes in signatures, checked at every call of short tests and at a part of the calls of long ones.

A check takes longer than many a call, and a loop of thousands of steps repeats the same calls: of each function's calls
in a test the first `FIRST` are checked, then every `EVERY`th.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest

FIRST, EVERY = 50, 13


class CallCount:
    """In place of jaxtyping's switch, which it reads at each call: whether this call is left unchecked."""

    def __init__(self) -> None:
        self.calls = Counter[Any]()

    def __get__(self, config: Any, kind: type) -> bool:
        function = sys._getframe(1).f_locals.get("fn")  # what jaxtyping is about to call; None counts all together
        self.calls[function] += 1
        return self.calls[function] > FIRST and self.calls[function] % EVERY != 0


@pytest.fixture(autouse=True)
def spared_checks() -> Iterator[CallCount]:
    """Count each test's calls from its start."""
    count = CallCount()
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(jaxtyping.config, "jaxtyping_disable")
        patch.setattr(type(jaxtyping.config), "jaxtyping_disable", count, raising=False)
        yield count
