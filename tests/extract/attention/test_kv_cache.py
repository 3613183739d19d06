"""Buffers of the preallocated cache: those of all layers come together, and each fits its layer."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from extract.attention import PreallocatedLayer, preallocated_cache


def model(**more: Any) -> Any:
    return SimpleNamespace(config=LlamaConfig(num_hidden_layers=3), **more)


def layers(cache: Any) -> list[PreallocatedLayer]:
    found: list[PreallocatedLayer] = cache.layers
    return found


def test_the_first_keys_allocate_the_buffers_of_all_layers() -> None:
    cache, keys = preallocated_cache(model(), 9), torch.randn(2, 4, 5, 8)
    cache.update(keys, keys + 1, 0)
    waiting = [layer._reserved for layer in layers(cache)[1:]]
    for number, reserved in enumerate(waiting, 1):
        assert reserved is not None
        cache.update(keys, keys + 1, number)
        layer = layers(cache)[number]
        assert [layer._keys.data_ptr(), layer._values.data_ptr()] == [buffer.data_ptr() for buffer in reserved]
    buffers = [buffer for layer in layers(cache) for buffer in (layer._keys, layer._values)]
    assert len({buffer.data_ptr() for buffer in buffers}) == 6
    for layer in layers(cache):
        assert layer.keys is not None
        assert layer.values is not None
        assert layer.keys.equal(keys)
        assert layer.values.equal(keys + 1)
        assert not layer._keys[:, :, 5:].any()


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (2, 1, 5, 8), (2, 4, 5, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_of_another_shape_gets_buffers_of_its_own(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    cache, first = preallocated_cache(model(), 9), torch.randn(2, 4, 5, 8)
    keys, values = torch.randn(shape).to(dtype), torch.randn(2, 4, 5, 3).to(dtype)
    cache.update(first, first, 0)
    cache.update(keys, values, 1)
    layer = layers(cache)[1]
    assert (layer._keys.shape, layer._keys.dtype) == ((*shape[:2], 9, shape[3]), dtype)
    assert (layer._values.shape, layer._values.dtype) == ((2, 4, 9, 3), dtype)
    assert layer.keys is not None
    assert layer.keys.equal(keys)


def test_layers_of_several_devices_allocate_their_own() -> None:
    cache, keys = preallocated_cache(model(hf_device_map={"a": 0, "b": 1}), 9), torch.randn(2, 4, 5, 8)
    cache.update(keys, keys, 0)
    assert all(layer._reserved is None for layer in layers(cache))
