"""Top-k and head numbers against plain loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import UserError
from extract.heads import HeadGrid, top_k, top_k_mask

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -math.inf, math.nan]), min_size=1, max_size=12)


@pytest.mark.parametrize("outside", [(3, 0), (0, 4), (-1, 0), (0, -1)])
def test_heads_are_chosen_by_layer_and_index_or_refused(outside: tuple[int, int]) -> None:
    grid = HeadGrid(3, 4)
    assert grid.mask([(0, 1), (2, 3)]).nonzero().tolist() == [[0, 1], [2, 3]]
    with pytest.raises(UserError, match=f"no head {outside[0]}-{outside[1]} among 3 layers × 4 heads"):
        grid.mask([(0, 0), outside])


@given(SCORES, st.integers(0, 14))
def test_top_k_equals_a_sort_of_pairs(scores: list[float], k: int) -> None:
    ranked = sorted(range(len(scores)), key=lambda i: (-(-math.inf if math.isnan(scores[i]) else scores[i]), i))
    rows = torch.tensor([scores, scores[::-1]])
    assert top_k(rows, k)[0].tolist() == ranked[:k]
    mask = top_k_mask(rows, k)
    assert mask.sum(dim=1).tolist() == [min(k, len(scores))] * 2
    assert set(mask[0].nonzero().flatten().tolist()) == set(ranked[:k])


@given(SCORES, st.integers(0, 14), st.data())
def test_top_k_among_some_is_top_k_of_these_alone(scores: list[float], k: int, data: st.DataObject) -> None:
    among = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    some = [i for i, allowed in enumerate(among) if allowed]
    chosen = top_k_mask(torch.tensor([scores]), k, among=torch.tensor([among]))[0].nonzero().flatten().tolist()
    assert chosen == sorted(some[i] for i in top_k(torch.tensor(scores)[some], k).tolist())


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_numbers_and_pairs_are_inverse(layers: int, heads: int, data: st.DataObject) -> None:
    grid = HeadGrid(layers, heads)
    flat = data.draw(st.integers(0, len(grid) - 1))
    layer, head = grid.layer_and_head(flat)
    assert 0 <= layer < layers
    assert 0 <= head < heads
    assert grid.flat(layer, head) == flat
    assert grid.name(flat) == f"{layer}-{head}"
