"""Reading a loop's values on the host without waiting for the device at every step."""

from collections import deque

import torch
from numpy.typing import NDArray
from torch import Tensor

LAG = 1
"""Steps by which the host reads later what a GPU computes: it queues the next step's kernels before it waits."""


def read_lag(device: torch.device) -> int:
    """Steps after which values are read: 0 on a CPU, whose results are there at once."""
    return LAG if device.type == "cuda" else 0


class DelayedReads:
    """Values of a loop's steps, copied to the host while later steps run.

    Reading a value in the step that computes it leaves the GPU idle until the host has queued the next kernels. Read
    `LAG` steps later, the loop runs as many steps too many at its end, which the caller cuts off.

    Args:
        device: Where the loop runs.

    >>> reads = DelayedReads(torch.device("cpu"))
    >>> [int(value) for value in reads.put(torch.tensor(3))]
    [3]
    >>> reads.rest()
    []

    """

    def __init__(self, device: torch.device) -> None:
        self._lag, self._waiting = read_lag(device), deque[_HostCopy]()

    def put(self, value: Tensor) -> list[NDArray]:  # type: ignore[type-arg]
        """Add a step's value, which must not change afterwards; returns the values that are read now, oldest first."""
        self._waiting.append(_HostCopy(value))
        return self._read(self._lag)

    def rest(self) -> list[NDArray]:  # type: ignore[type-arg]
        """The values of the last steps."""
        return self._read(0)

    def _read(self, left: int) -> list[NDArray]:  # type: ignore[type-arg]
        return [self._waiting.popleft().read() for _ in range(len(self._waiting) - left)]


class _HostCopy:
    """A copy that has been queued."""

    def __init__(self, value: Tensor) -> None:
        self._host, self._event = value, None
        if value.device.type == "cuda":
            # Only page-locked memory is written while the host goes on.
            self._host = torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(value.device))
        elif value.device.type != "cpu":
            self._host = value.cpu()

    def read(self) -> NDArray:  # type: ignore[type-arg]
        """The value, when its copy has ended."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()
