"""Eq. 1 and Eq. 2 against plain loops."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.scores import ExcludedKeys, copy_paste_score, is_dynamic, kept_keys, reasoning_score
from tests.helpers import reference


@st.composite
def cases(draw: st.DrawFn):  # type: ignore[no-untyped-def]
    keys, pad = draw(st.integers(1, 12)), draw(st.integers(0, 4))
    heads = draw(st.integers(1, 4))
    weights = draw(st.lists(st.lists(st.floats(0, 1), min_size=keys, max_size=keys), min_size=heads, max_size=heads))
    ids = draw(st.lists(st.integers(0, 2), min_size=keys, max_size=keys))
    evidence = draw(st.sets(st.integers(0, keys - 1)))
    return pad, weights, ids, evidence, draw(st.integers(0, 5)), draw(st.integers(0, 5)), draw(st.integers(0, 2))


@given(cases())
def test_scores_equal_the_loops_with_padding(case: tuple) -> None:  # type: ignore[type-arg]
    pad, weights, ids, evidence, sink, local, generated = case
    rows = torch.tensor(weights, dtype=torch.float64)
    padded = torch.nn.functional.pad(rows, (pad, 0))[None]
    real = torch.tensor([[False] * pad + [True] * len(ids)])
    tokens = torch.tensor([[0] * pad + ids])
    marked = torch.tensor([[False] * pad + [i in evidence for i in range(len(ids))]])

    copied = copy_paste_score(rows.argmax(1)[None] + pad, tokens, marked, torch.tensor([generated]))
    # max() and argmax agree on the first of equal weights
    assert copied[0].tolist() == [bool(reference.eq1(row, ids, evidence, generated)) for row in rows]

    kept = kept_keys(real, ExcludedKeys(sink, local))[0]
    some = (kept & marked[0]).any()[None]
    mine = reasoning_score((padded * (kept & marked[0])).sum(2), (padded * kept).sum(2), some)
    for score, row in zip(mine[0].tolist(), rows, strict=True):
        wanted = reference.eq2(row, evidence, sink, local)
        assert (math.isnan(score) and math.isnan(wanted)) or abs(score - wanted) < 1e-9
        assert math.isnan(score) or 0 <= score <= 1


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 5), st.integers(0, 5))
def test_padding_between_tokens_changes_no_kept_key(real: list[bool], sink: int, local: int) -> None:
    """An answer that is continued beside longer ones has padding after its prompt."""
    gapped, excluded = torch.tensor([[*real, True]]), ExcludedKeys(sink, local)
    alone = kept_keys(torch.ones(1, int(gapped.sum()), dtype=torch.bool), excluded)
    kept = kept_keys(gapped, excluded)
    assert kept[gapped].equal(alone[0])
    assert not kept[~gapped].any()


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan]), max_size=8), st.sampled_from([0.25, 0.5, 2.0]))
def test_heads_are_dynamic_from_their_threshold_on(scores: list[float], threshold: float) -> None:
    for target, cut in (("reasoning", threshold), ("copy_paste", 1.0)):
        known = [score for score in scores if target == "reasoning" or score in (0.0, 1.0)]
        wanted = [score >= cut for score in known]  # false for NaN
        assert is_dynamic(torch.tensor(known), target, threshold).tolist() == wanted
        assert is_dynamic(np.array(known), target, threshold).tolist() == wanted


def test_nothing_kept_is_no_score_rather_than_zero() -> None:
    assert math.isnan(reasoning_score(torch.zeros(1, 1), torch.zeros(1, 1), torch.tensor([True])).item())
    assert math.isnan(reasoning_score(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([False])).item())
