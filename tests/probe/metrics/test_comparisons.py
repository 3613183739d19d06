"""Paired tests against enumeration, and Holm's correction against its definition."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.metrics import Bootstrap, compare_conditions, holm, mcnemar, paired, paired_difference, paired_p


@pytest.mark.parametrize(("more", "less"), [(0, 0), (5, 0), (4, 2), (3, 3), (0, 9)])
def test_mcnemar_equals_counting_all_signs(more: int, less: int) -> None:
    """Under the null each prompt that tells the two apart falls on either side with chance one half."""
    n, gap = more + less, abs(more - less)
    outcomes = [sum(signs) for signs in product((-1, 1), repeat=n)]
    assert mcnemar(more, less) == pytest.approx(sum(abs(total) >= gap for total in outcomes) / 2**n)


def test_pairs_use_that_the_prompts_are_the_same() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(300)
    found = paired(hard, hard - 0.01, Bootstrap(500))
    assert (found.difference, found.low, found.high) == pytest.approx((0.01, 0.01, 0.01))
    assert (found.n, found.more, found.less) == (300, 300, 0)
    assert found.p < 1e-3
    right, wrong = (hard > 0.2).astype(float), (hard > 0.5).astype(float)
    turned = paired(wrong, right, Bootstrap(500))
    assert turned.more == 0 and turned.less == int(((hard > 0.2) & (hard <= 0.5)).sum())
    assert turned.p == mcnemar(0, turned.less)
    assert turned.low < turned.difference < turned.high < 0


@settings(deadline=None)
@given(st.lists(st.integers(-8, 8), min_size=1, max_size=10))
def test_p_of_few_prompts_counts_all_signs(gaps: list[int]) -> None:
    """Each prompt's difference has either sign with probability one half; both tails, as far out as the sum is."""
    total = abs(sum(gaps))
    sums = [
        sum(sign * gap for sign, gap in zip(signs, gaps, strict=True)) for signs in product((-1, 1), repeat=len(gaps))
    ]
    expected = sum(abs(one) >= total for one in sums) / len(sums)
    assert paired_p(np.array(gaps) / 4) == pytest.approx(min(1, expected))


def test_p_of_many_prompts_is_close_to_the_t_test() -> None:
    from scipy import stats

    gaps = np.random.default_rng(3).normal(0.2, 1, size=150)
    expected = stats.ttest_1samp(gaps, 0).pvalue
    assert 0.003 < expected < 0.3
    assert paired_p(gaps) == pytest.approx(expected, rel=0.25)
    assert paired_p(gaps) == paired_p(gaps)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_definition_rejects(p_values: list[float]) -> None:
    """Step down from the smallest p: reject while p(i) <= alpha / (m - i + 1), and stop at the first that is not."""
    corrected = holm(p_values)
    for alpha in (0.001, 0.01, 0.05, 0.2, 0.5):
        if any(abs(one - alpha) < 1e-12 for one in corrected):
            continue
        rejected = [False] * len(p_values)
        for place, number in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
            if p_values[number] > alpha / (len(p_values) - place):
                break
            rejected[number] = True
        assert [one < alpha for one in corrected] == rejected


def test_conditions_are_compared_where_both_have_a_value() -> None:
    values = {"a": np.array([1.0, 2, 3, np.nan, 5]), "b": np.array([0.0, np.nan, 1, 1, 1])}
    (pair,) = compare_conditions(values, "f1", "a", Bootstrap(20))
    assert (pair["n"], pair["difference"], pair["metric"]) == (3, pytest.approx(7 / 3), "f1")
    turned = paired_difference([pair], "b", "a", "f1")
    assert (turned["difference"], turned["low"], turned["high"]) == (-pair["difference"], -pair["high"], -pair["low"])
    with pytest.raises(KeyError):
        paired_difference([pair], "b", "a", "em")


def test_a_pair_without_a_common_prompt_is_not_tested_and_counts_in_no_family() -> None:
    """`w/o RAG` retrieves nothing, so it has no recall: the other comparisons are corrected as if it were not there."""
    rng = np.random.default_rng(0)
    values = {name: rng.random(30) for name in ("dynamic", "static", "random")}
    plain = compare_conditions(values, "first_recall", "dynamic", Bootstrap(20))
    found = compare_conditions({**values, "w/o RAG": np.full(30, np.nan)}, "first_recall", "dynamic", Bootstrap(20))
    for pair in found:
        if pair["second"] == "w/o RAG":
            assert (pair["n"], pair["p"], pair["p_holm"]) == (0, None, None)
        else:
            assert pair in plain
    assert len(found) == len(plain) + 3
