"""Random ablations: which sources of a context stay, each with probability ½."""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

MOST_LISTED = 12
"""Sources up to which all sets of them are listed, so that the last ones left are found, too."""


def sample_masks(
    count: int, sources: int, seed: int, excluded: Bool[Tensor, "other source"] | None = None
) -> Bool[Tensor, "run source"]:
    """Distinct random sets of kept sources, each source with probability ½; never all of them.

    For a seed, the first masks are the same whatever the count. Fewer where there are not as many.

    Args:
        count: Most masks.
        sources: Number of sources.
        seed: Of the sample.
        excluded: Masks that are left out.

    >>> sample_masks(2, sources=4, seed=0).int().tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    >>> len(sample_masks(9, sources=2, seed=0, excluded=torch.tensor([[False, False]])))
    2

    """
    rng = np.random.default_rng((seed, sources))
    taken = {(True,) * sources} | ({tuple(mask) for mask in excluded.tolist()} if excluded is not None else set())
    found = list[tuple[bool, ...]]()
    candidates = rng.permutation(2**sources) if sources <= MOST_LISTED else None
    while len(found) < count and (candidates is None or len(candidates)):
        if candidates is None:
            mask = tuple((rng.random(sources) < 0.5).tolist())
        else:
            mask, candidates = _bits(int(candidates[0]), sources), candidates[1:]
        if mask not in taken:
            found.append(mask)
            taken.add(mask)
    return torch.tensor(found, dtype=torch.bool).view(-1, sources)


def _bits(number: int, sources: int) -> tuple[bool, ...]:
    return tuple(bool(number >> place & 1) for place in range(sources))


def leave_one_out_masks(sources: int) -> Bool[Tensor, "source source"]:
    """One mask a source, without it.

    >>> leave_one_out_masks(2)
    tensor([[False,  True],
            [ True, False]])

    """
    return ~torch.eye(sources, dtype=torch.bool)


def held_out_masks(count: int, sources: int, seed: int) -> Bool[Tensor, "run source"]:
    """Masks that methods are evaluated on, and none may use: at most half of all, and none that leaves one source out.

    Args:
        count: Most masks.
        sources: Number of sources.
        seed: Of the sample; masks of methods have another one.

    >>> held_out_masks(100, sources=3, seed=0).sum(1).sort().values  # 3 of 8 masks; those of two sources are left out
    tensor([0, 1, 1])

    """
    most = (2**sources - 1) // 2 if sources <= MOST_LISTED else count
    return sample_masks(min(count, most), sources, seed, leave_one_out_masks(sources))
