"""Samplers that divide fixed batches among processes by batch number."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler


class Share(DistributedSampler[Any]):
    """Batch numbers of one process: every `world`-th from `rank` on; the number past the last where it has none.

    Lightning leaves a DistributedSampler alone. Its own would stride samples, so that batches would hold other
    samples than on one process, and would repeat some to make shares equal.

    Args:
        count: Number of batches.
        rank: Number of this process.
        world: Number of processes.
        even: Give every process the same number of batches by leaving out the last few. Training needs it.

    >>> [list(Share(5, rank, world=2)) for rank in range(2)]
    [[0, 2, 4], [1, 3]]

    """

    def __init__(self, count: int, rank: int, world: int, even: bool = False) -> None:
        self.count, self.rank, self.num_replicas, self.epoch = count, rank, world, 0
        self.even = even

    def __iter__(self) -> Iterator[Any]:
        """Batch numbers of this process."""
        numbers = list(range(self.rank, self.count, self.num_replicas)) or [self.count]
        return iter(numbers[: len(self)])

    def __len__(self) -> int:
        """Number of batches of this process."""
        if self.even:
            return self.count // self.num_replicas
        return max(1, len(range(self.rank, self.count, self.num_replicas)))


class EpochShare(Share):
    """`Share` of (batch number, epoch) pairs: a loader's worker processes are not told the epoch otherwise."""

    begun = 0
    """Batches of the next epoch that a resumed run had before: they are left out."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Pairs of batch number and epoch."""
        begun, self.begun = self.begun, 0
        return ((number, self.epoch) for number in list(super().__iter__())[begun:])


class ResumableLoader(DataLoader[Any]):
    """A loader with an `EpochShare` that goes on in the midst of an epoch; Lightning keeps its state in checkpoints."""

    position: Callable[[], int] = staticmethod(lambda: 0)
    """Gives the number of batches that training has had of this epoch; workers may have read more."""

    def state_dict(self) -> dict[str, int]:
        """The position, for a checkpoint."""
        return {"batches": self.position()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch there."""
        assert isinstance(self.sampler, EpochShare)
        self.sampler.begun = state["batches"]
