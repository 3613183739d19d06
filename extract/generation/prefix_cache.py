"""Prefix cache: keys of views that were run, for later views of the same question to continue from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extract.attention import PreallocatedLayer, preallocated_cache
from extract.generation.prompt_view import PromptView

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True, eq=False)
class _CachedView:
    """Keys of a view, on the model's devices."""

    view: PromptView
    layers: list[PreallocatedLayer]


class PrefixCache:
    """The latest views of each question with their keys.

    A token's keys depend only on the tokens before it, their positions and their mask, so a view can continue from the
    common prefix with a cached one. The result is the same up to rounding.

    Args:
        model: The model.
        size: Views kept for each question.
        windowed: Whether a layer has a sliding window. It has dropped keys, so that nothing can be kept.

    """

    def __init__(self, model: "PreTrainedModel", size: int, windowed: bool) -> None:
        self._model, self._size, self._windowed = model, size, windowed
        self._views: dict[int, list[_CachedView]] = {}

    def start(self, question: int, view: PromptView, capacity: int) -> tuple["DynamicCache", int]:
        """A KV cache with the longest cached prefix of a view, and the length of that prefix.

        The view's last token is never taken over: it must run, for its logits.
        """
        cache, views = preallocated_cache(self._model, capacity), self._views.get(question, [])
        prefixes = ((min(cached.view.common_prefix(view), len(view) - 1), n) for n, cached in enumerate(views))
        length, best = max(prefixes, default=(0, 0))
        if not length:
            return cache, 0
        for layer, source in zip(cache.layers, views[best].layers, strict=True):
            assert isinstance(layer, PreallocatedLayer)
            assert source.keys is not None
            assert source.values is not None
            layer.update(source.keys[:, :, :length], source.values[:, :, :length])
        views.append(views.pop(best))  # the least recently used view goes first
        return cache, length

    def add(self, question: int, view: PromptView, layers: Sequence[object], row: int, start: int) -> None:
        """Keep the keys of a view that was run in a row of a batch, from column `start` on."""
        if self._windowed:
            return
        span = slice(row, row + 1), slice(None), slice(start, start + len(view))
        copies = []
        for layer in layers:
            assert isinstance(layer, PreallocatedLayer)
            assert layer.keys is not None
            assert layer.values is not None
            # A copy: the batch's buffer still changes, and is larger.
            copy = PreallocatedLayer(len(view))
            copy.update(layer.keys[span], layer.values[span])
            copies.append(copy)
        views = self._views.setdefault(question, [])
        views.append(_CachedView(view, copies))
        del views[: -self._size]

    def forget(self, question: int) -> None:
        """Free the views of a question."""
        self._views.pop(question, None)
