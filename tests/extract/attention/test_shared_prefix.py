"""Keys shared by branches of a prompt against the same keys repeated for every row."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from extract.attention.shared_prefix import Branching, KeyValues


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31 - 1)
)
def test_shared_keys_equal_repeated_keys(branches: list[int], groups: int, share: int, seed: int) -> None:
    """Prompts with 1 to 4 branches each, any number of KV heads and of query heads that share one."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    prompts = torch.arange(len(branches)).repeat_interleave(torch.tensor(branches))
    keys, values = random(len(branches), groups, 5, 8), random(len(branches), groups, 5, 6)
    shared = KeyValues(keys, values, Branching.of(prompts))
    repeated = KeyValues(keys[prompts], values[prompts])
    queries, weights = random(len(prompts) * groups, share, 8), random(len(prompts) * groups, share, 5)
    torch.testing.assert_close(shared.query_products(queries), repeated.query_products(queries))
    torch.testing.assert_close(shared.weighted_values(weights), repeated.weighted_values(weights))
