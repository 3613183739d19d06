"""A GPU emulated on the CPU: which tensors would lie on it, and where the host would wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from extract.utils import host_reads

FACTORIES = (torch.tensor, torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.randn, torch.rand)
READS = ("item", "is_nonzero", "_local_scalar_dense")
SIZED_BY_VALUES = ("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount")
"""Operations whose result has a size that the host must read first."""
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


class EmulatedDevice(TorchFunctionMode):
    """Tensors made with a device, moved to one, or computed from such tensors are the device's; all others the host's.

    Attributes:
        waits: Operations at which the host would wait for the device, in order.

    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES:
            result = func(*args, **kwargs)
            if func is torch.tensor and kwargs.get("device") is not None and result.numel():
                self.waits.append("tensor")
            return _marked(result, kwargs.get("device") is not None)
        if func in (Tensor.tolist, Tensor.cpu) and on_device(args[0]):
            self.waits.append(func.__name__)
            with torch._C.DisableTorchFunction():
                return func(_marked(args[0].clone(), False), *args[1:], **kwargs)
        places = [kwargs.get("device"), *args[1:]]  # `to` takes a device, or a tensor whose device it is
        if func is Tensor.to and any(isinstance(one, torch.device) or on_device(one) for one in places):
            return self._moved(args[0], func(*args, **kwargs), kwargs)
        return func(*args, **kwargs)

    def _moved(self, source: Tensor, result: Tensor, kwargs: dict[str, Any]) -> Tensor:
        if on_device(source):
            return result
        if not kwargs.get("non_blocking"):
            self.waits.append("to")
        # On a CPU nothing is copied: another tensor object takes the mark, and the host's keeps its own.
        return _marked(result.detach() if result is source else result, True)


class _Operations(TorchDispatchMode):
    """Marks what is computed from tensors of the device, and finds operations that read it."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.partition("::")[2]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(on_device(tensor) for tensor in tensors)
        if there:
            self._check(name, tensors, args)
        return _marked(func(*args, **kwargs), there)

    def _check(self, name: str, tensors: list[Tensor], args: Any) -> None:
        """Count a wait; fail where a real device would, for tensors in two places."""
        here = [tensor for tensor in tensors if not on_device(tensor) and tensor.ndim]
        if name in READS or name in SIZED_BY_VALUES or (name == "repeat_interleave" and len(tensors) > 1):
            self.waits.append(name)
        elif name in INDEXING:
            indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
            self.waits.extend(f"{name} by a mask" for index in indices if index.dtype == torch.bool)
            self.waits.extend(f"{name} by the host's indices" for index in indices if not on_device(index))
        elif name == "copy_" and here:
            self.waits.append(name)
        elif here:
            raise AssertionError(f"{name}: tensors of the host and of the device")


def on_device(value: Any) -> bool:
    """Whether a value is a tensor of the emulated device."""
    return isinstance(value, Tensor) and getattr(value, "_on_device", False)


def _marked(results: Any, mark: bool) -> Any:
    for leaf in tree_leaves(results):
        if isinstance(leaf, Tensor):
            leaf._on_device = mark  # type: ignore[attr-defined]
    return results


@contextmanager
def emulated_device(model: Any, lag: int = host_reads.LAG) -> Iterator[EmulatedDevice]:
    """The model lies on an emulated GPU, whose values the host reads `lag` steps later."""
    device = EmulatedDevice()
    _marked([*model.parameters(), *model.buffers()], True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_reads, "read_lag", lambda _: lag)
        with _Operations(device.waits), device:
            yield device
