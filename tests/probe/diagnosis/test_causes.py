"""Segments, statistics, the rule of causes and its thresholds: slow references, and properties."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from probe.diagnosis import (
    CAUSES,
    Finding,
    Thresholds,
    TokenStatistics,
    attended_margin,
    calibrate,
    diagnose,
    is_cut_off,
    is_other_form,
    outvoted_share,
    split_context,
    written_score,
)
from probe.diagnosis.causes import FEWEST_SOLVED
from probe.diagnosis.statistics import most_opposing, writing_heads

values = st.floats(-100, 100, width=32)
THRESHOLDS = Thresholds(attended=0.1, written=2.0, outvoted=0.6)


@st.composite
def contexts(sample: st.DrawFn) -> tuple[tuple[int, int], list[tuple[int, int]], int]:
    """A context, disjoint evidence within it, and the most segments."""
    borders = sorted(sample(st.sets(st.integers(5, 400), min_size=4, max_size=8)))
    inner = borders[1:-1]
    spans = list(zip(inner[::2], inner[1::2], strict=False))
    return (borders[0], borders[-1]), spans, sample(st.integers(3, 40))


@given(contexts())
def test_segments_and_evidence_are_the_context(given: tuple[tuple[int, int], list[tuple[int, int]], int]) -> None:
    context, evidence, most = given
    found = split_context(context, evidence, most)
    places = [place for span in (*found.evidence, *found.others) for place in range(*span)]
    assert sorted(places) == list(range(*context))
    assert list(found.evidence) == evidence
    assert len(found.others) == len(found.matched) <= most + len(evidence) + 1
    mean = sum(end - start for start, end in evidence) / len(evidence)
    unrelated = context[1] - context[0] - sum(end - start for start, end in evidence)
    if unrelated <= most * round(mean):  # else segments are longer
        sizes = [end - start for (start, end), matched in zip(found.others, found.matched, strict=True) if matched]
        assert all(0.5 * round(mean) <= size <= 1.5 * round(mean) + 1 for size in sizes)


def test_evidence_that_overlaps_is_one_span() -> None:
    assert split_context((0, 30), [(8, 12), (10, 15)]).evidence == ((8, 15),)
    assert split_context((0, 30), [(8, 12), (12, 15)]).evidence == ((8, 12), (12, 15))


@st.composite
def tokens(sample: st.DrawFn) -> tuple[torch.Tensor, int, torch.Tensor]:
    """Values of heads on sources, the number of evidence spans, which others are matched: two at least."""
    heads, evidence, others = sample(st.integers(1, 4)), sample(st.integers(1, 3)), sample(st.integers(2, 6))
    row = st.lists(values, min_size=evidence + others, max_size=evidence + others)
    grid = torch.tensor(sample(st.lists(row, min_size=heads, max_size=heads)))
    matched = sample(st.lists(st.booleans(), min_size=others, max_size=others).filter(lambda one: sum(one) > 1))
    return grid, evidence, torch.tensor(matched)


@given(tokens())
def test_statistics_follow_their_formulas(token: tuple[torch.Tensor, int, torch.Tensor]) -> None:
    grid, evidence, matched = token
    rows, chosen = grid.tolist(), [evidence + n for n, one in enumerate(matched.tolist()) if one]
    margin = max(max(row[:evidence]) - max(row[place] for place in chosen) for row in rows)
    assert attended_margin(grid, evidence, matched) == pytest.approx(margin, abs=1e-4)
    right = grid.sum(dim=0)
    total = right.double().tolist()
    mean = sum(total[place] for place in chosen) / len(chosen)
    spread = math.sqrt(sum((total[place] - mean) ** 2 for place in chosen) / len(chosen))
    if spread > 1e-3:
        assert written_score(right, evidence, matched) == pytest.approx((max(total[:evidence]) - mean) / spread, 1e-3)
    opposing, written = max(0.0, -min(total[evidence:])), max(0.0, sum(total[:evidence]))
    share = opposing / (opposing + written) if opposing else 0.0
    assert outvoted_share(right, evidence) == pytest.approx(share, abs=1e-4)
    assert total[evidence + (most_opposing(right, evidence) or 0)] == min(total[evidence:])
    strength = [sum(row[:evidence]) for row in rows]
    named = writing_heads(grid, evidence, 2)
    assert sorted((strength[head] for head in named), reverse=True) == pytest.approx(
        sorted(strength, reverse=True)[: len(named)], abs=1e-3
    )


@given(tokens(), st.floats(0.01, 100), st.randoms())
def test_scale_and_order_of_unrelated_segments_change_no_cause(
    token: tuple[torch.Tensor, int, torch.Tensor], scale: float, random: object
) -> None:
    """Contributions have no unit that matters; segments have no order."""
    grid, evidence, matched = token
    order = list(range(len(matched)))
    random.shuffle(order)  # type: ignore[attr-defined]
    moved = torch.cat([grid[:, :evidence], grid[:, evidence:][:, order]], dim=1)
    assert attended_margin(moved, evidence, matched[order]) == attended_margin(grid, evidence, matched)
    right, other = grid.double().sum(dim=0), scale * moved.double().sum(dim=0)
    if float(right[evidence:][matched].std()) > 1e-3:
        wanted = written_score(right, evidence, matched)
        assert written_score(other, evidence, matched[order]) == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    assert outvoted_share(other, evidence) == pytest.approx(outvoted_share(right, evidence), abs=1e-6)


def test_without_segments_to_compare_statistics_are_not_defined() -> None:
    one, none = torch.tensor([True]), torch.zeros(0, dtype=torch.bool)
    assert math.isnan(attended_margin(torch.ones(2, 1), 1, none))
    assert math.isnan(written_score(torch.ones(2), 1, one))
    assert outvoted_share(torch.tensor([1.0]), 1) == 0
    assert most_opposing(torch.tensor([1.0]), 1) is None
    assert written_score(torch.tensor([2.0, 1.0, 1.0]), 1, torch.tensor([True, True])) > 1e8


def slow_cause(form: bool, cut: bool, follows: bool, attends: bool, writes: bool, prior: bool, opposed: bool) -> str:
    """The rule as the documentation has it: the first row that applies."""
    rule = (
        (form, "other_form"),
        (cut, "cut_off"),
        (follows, "follows"),
        (not attends, "not_attended"),
        (not writes, "not_written"),
        (prior, "knowledge"),
        (opposed, "context"),
        (True, "undecided"),
    )
    return next(name for applies, name in rule if applies)


def test_the_first_cause_that_applies_is_taken() -> None:
    reached = set()
    for flags in itertools.product((False, True), repeat=7):
        form, cut, follows, attends, writes, prior, opposed = flags
        token = TokenStatistics(
            0.5 if attends else 0.1, 3.0 if writes else 2.0, 0.6 if opposed else 0.5, prior, 9, follows
        )
        wanted = slow_cause(*flags)
        assert diagnose(Finding(form, cut, token), THRESHOLDS) == wanted
        reached.add(wanted)
    assert reached == set(CAUSES)
    known = TokenStatistics(0.5, 3.0, 0.9, False, 9)
    few = TokenStatistics(0.5, 3.0, 0.9, False, 2)
    for token, thresholds in ((None, THRESHOLDS), (known, None), (few, THRESHOLDS)):
        assert diagnose(Finding(False, False, token), thresholds) == "undecided"


solved = st.builds(
    TokenStatistics, st.floats(-1, 1), st.floats(-50, 50), st.floats(0, 1), st.booleans(), st.just(9), st.just(False)
)


@given(st.lists(solved, min_size=FEWEST_SOLVED, max_size=60), st.sampled_from([0.0, 0.05, 0.2]))
def test_at_most_the_tail_of_solved_answers_is_beyond_a_threshold(found: list[TokenStatistics], tail: float) -> None:
    """Unless the evidence is not the most attended, not written, or the weaker one: these borders are fixed."""
    thresholds = calibrate(found, tail)
    assert thresholds is not None
    most = tail * (len(found) - 1) + 1e-6
    assert sum(0 < token.attended < thresholds.attended - 1e-9 for token in found) <= most + 1
    assert sum(0 < token.written < thresholds.written - 1e-9 for token in found) <= most + 1
    assert sum(token.outvoted > max(0.5, thresholds.outvoted) + 1e-9 for token in found) <= most + 1
    assert (thresholds.attended >= 0, thresholds.written >= 0, thresholds.outvoted >= 0.5) == (True, True, True)
    assert calibrate(found[: FEWEST_SOLVED - 1], tail) is None


def test_thresholds_are_within_their_ranges() -> None:
    with pytest.raises(UserError, match=r"Thresholds\.outvoted: at least 0 and at most 1"):
        Thresholds(0.1, 2.0, 1.5)


def test_other_forms_and_answers_cut_off() -> None:
    for answer, gold, same in (
        ("There are two.", "2", True),
        ("7F3A-9C1B", "7f3a9c1b", True),
        ("often", "ten", False),
        ("there is no other", "no", False),
        ("7f3a", "7f3a9c1b", False),
    ):
        assert is_other_form(answer, gold) is same
    for answer, ended, begun, cut in (
        ("it is 7f3a", False, True, True),
        ("it is 7f3a", True, True, False),
        ("it is 7f3a-9c", False, True, False),
        ("it is", False, False, True),
        ("it is 9b", False, True, False),
    ):
        assert is_cut_off(answer, "7f3a9c", ended, begun) is cut
