"""Algorithm 2: windows against a slow reference, and their properties."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from extract.prompts import Span
from probe.rag.strategies import Windows
from probe.rag.strategies.windows import clusters, merge_spans, window

SCORES = st.lists(st.integers(0, 9), min_size=1, max_size=60)
"""Small whole numbers, so that ties are common."""
SETTINGS = st.builds(Windows, k=st.integers(1, 12), gap=st.integers(0, 9), width=st.integers(1, 20))


def reference_windows(scores: list[int], settings: Windows) -> set[int]:
    """The visible positions by a slow reference that uses no function of the module."""
    best = sorted(sorted(range(len(scores)), key=lambda p: (-scores[p], p))[: settings.k])
    groups: list[list[int]] = [[best[0]]]
    for position in best[1:]:
        if position - groups[-1][-1] > settings.gap:
            groups.append([])
        groups[-1].append(position)
    shown: set[int] = set()
    for group in groups:
        centre = min(group, key=lambda p: (-scores[p], p))
        start = centre - settings.width // 2
        while start + settings.width > len(scores):
            start -= 1
        start = max(start, 0)
        shown |= {p for p in range(start, start + settings.width) if p < len(scores)}
    return shown


@given(SCORES, SETTINGS)
def test_windows_equal_a_slow_reference(scores: list[int], settings: Windows) -> None:
    found = settings.select(torch.tensor(scores, dtype=torch.float32))
    assert {p for start, end in found for p in range(start, end)} == reference_windows(scores, settings)


@given(SCORES, SETTINGS)
def test_windows_lie_within_the_context_sorted_and_disjoint(scores: list[int], settings: Windows) -> None:
    found = settings.select(torch.tensor(scores, dtype=torch.float32))
    assert found
    flat = [bound for span in found for bound in span]
    assert flat == sorted(flat)
    assert len(set(flat)) == len(flat)  # spans that touch are one
    assert flat[0] >= 0
    assert flat[-1] <= len(scores)
    assert all(end - start >= min(settings.width, len(scores)) for start, end in found)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=8))
def test_merging_keeps_every_position_and_adds_none(spans: list[Span]) -> None:
    spans = [(start, start + length) for start, length in spans]
    found = merge_spans(spans)
    assert {p for a, b in found for p in range(a, b)} == {p for a, b in spans for p in range(a, b)}
    assert all(former[1] < later[0] for former, later in pairwise(found))


def test_a_worked_example() -> None:
    assert clusters([2, 5, 11, 12, 30], gap=6) == [[2, 5, 11, 12], [30]]
    assert window(1, 10, 100) == (0, 10)
    assert window(99, 10, 100) == (90, 100)
    assert window(50, 10, 100) == (45, 55)
    assert window(3, 10, 4) == (0, 4)


@pytest.mark.parametrize("bad", [{"heads": 0}, {"k": 0}, {"width": 0}, {"gap": -1}])
def test_bad_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=rf"Windows\.{next(iter(bad))}: at least"):
        Windows(**bad)
