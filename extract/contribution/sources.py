"""Sources of a context: the parts whose logit contributions are summed."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Spans = Sequence[tuple[int, int]]
"""Token spans of one source in the unpadded prompt, each from its start to before its end."""


@dataclass(frozen=True, eq=False)
class Sources:
    """Which keys of a batch belong to which source.

    Attributes:
        members: Whether a column, of prompt or answer, belongs to a source.
        columns: The columns that belong to any source, if they are few; None: all columns are read.
        ascending: The same on the host, so that no step waits for the device to find some of them.

    """

    members: Bool[Tensor, "batch capacity source"]
    columns: Int[Tensor, "some"] | None = None
    ascending: Sequence[int] = ()

    @classmethod
    def of(
        cls, members: Bool[Tensor, "batch capacity source"], here: Bool[Tensor, "batch capacity source"] | None = None
    ) -> "Sources":
        """Only columns of sources are read if they are fewer than half of all.

        Args:
            members: Whether a column belongs to a source.
            here: The same on the host, where it is known there; None: it is read from the device.

        >>> members = torch.zeros(1, 8, 1, dtype=torch.bool)
        >>> members[0, 2:4] = True
        >>> Sources.of(members).columns
        tensor([2, 3])

        """
        used = (members.cpu() if here is None else here).flatten(2).any(dim=2).any(dim=0).nonzero()[:, 0]
        if 2 * len(used) >= members.shape[1]:
            return cls(members)
        return cls(members, used.to(members.device, non_blocking=True), used.tolist())

    def visible(self, missing: int, keys: int) -> Int[Tensor, "some"] | None:
        """Columns to read among `keys` keys after the first `missing` columns, counted from there; None: all.

        >>> members = torch.zeros(1, 8, 1, dtype=torch.bool)
        >>> members[0, [2, 3, 6]] = True
        >>> Sources.of(members).visible(missing=3, keys=4)
        tensor([0, 3])

        """
        if self.columns is None:
            return None
        first, end = (bisect_left(self.ascending, border) for border in (missing, missing + keys))
        return self.columns[first:end] - missing

    def weights(self, missing: int, keys: int, columns: Tensor | None) -> Tensor:
        """0 or 1 for each of the keys that are read, in float32: [batch, key, source]."""
        part = self.members[:, missing : missing + keys]
        return (part if columns is None else part[:, columns]).float()


def prompt_sources(
    real: Bool[Tensor, "batch capacity"], width: int, spans: Sequence[Sequence[Spans]]
) -> Bool[Tensor, "batch capacity source"]:
    """Given sources of each prompt, then two more: the answer so far, and all other tokens of the prompt.

    Prompts with fewer sources than others have empty ones before the last two.

    Args:
        real: Whether a column is a token rather than padding.
        width: Columns of padding and prompt.
        spans: Of each prompt, each of its sources.

    >>> real = torch.tensor([[False, True, True, True, True, True]])  # 4 prompt tokens, 1 of the answer
    >>> prompt_sources(real, width=5, spans=[[[(1, 3)]]])[0].int().T
    tensor([[0, 0, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 1],
            [0, 1, 0, 0, 1, 0]], dtype=torch.int32)

    """
    most = max((len(sources) for sources in spans), default=0)
    members = torch.zeros(*real.shape, most + 2, dtype=torch.bool)
    for row, sources in enumerate(spans):
        first = int((~real[row]).sum())
        for number, source in enumerate(sources):
            for start, end in source:
                members[row, first + start : min(first + end, width), number] = True
    members = members.to(real.device)
    members[:, width:, most] = True
    members[..., most + 1] = real & ~members.any(dim=2)
    return members
