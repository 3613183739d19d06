"""A traced forward: what every module of a model read and wrote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: Of the module in the model.
        module: The module.
        read, written: First tensors among its arguments and its results.

    """

    name: str
    module: torch.nn.Module
    read: Tensor
    written: Tensor


@dataclass(frozen=True, eq=False)
class Trace:
    """Calls of a model's modules in the order in which they returned."""

    calls: list[Call]

    def of(self, module: torch.nn.Module) -> Call:
        """The first call of a module."""
        return next(call for call in self.calls if call.module is module)

    def within(self, name: str) -> list[Call]:
        """Calls of the submodules of a module."""
        return [call for call in self.calls if call.name.startswith(f"{name}.")]


@contextmanager
def tracing(model: torch.nn.Module) -> Iterator[Trace]:
    """Keep what modules read and write; for short inputs, since nothing is freed before the end."""
    trace = Trace([])

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], result: Any) -> None:
            # By tuple order for results; hidden states come as first argument or as keyword.
            read, written = _first([*args, *kwargs.values()]), _first(result)
            if read is not None and written is not None:
                trace.calls.append(Call(name, module, read, written))

        return hook

    hooks = [
        module.register_forward_hook(keep(name), with_kwargs=True) for name, module in model.named_modules() if name
    ]
    try:
        yield trace
    finally:
        for handle in hooks:
            handle.remove()


def _first(values: Any) -> Tensor | None:
    """The first floating-point tensor, or first tensor of a list."""
    found = [values] if isinstance(values, Tensor) else list(values) if isinstance(values, list | tuple) else []
    return next((value for value in found if isinstance(value, Tensor) and value.is_floating_point()), None)
