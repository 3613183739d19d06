"""The GPU benchmark in its tiny form, on the CPU."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import bench_gpu

CPU = torch.device("cpu")
SIZES = bench_gpu.SIZES["tiny"]


@pytest.fixture(scope="module")
def llm() -> bench_gpu.RandomLLM:
    with torch.inference_mode():
        return bench_gpu.RandomLLM(SIZES.config, CPU)


def test_every_part_is_measured_and_written(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    report = bench_gpu.main(["--output", str(file), "--shape", "tiny", "--device", "cpu"])
    assert json.loads(file.read_text()) == json.loads(json.dumps(report))
    settings = list(itertools.product(SIZES.keys, SIZES.batches))
    for part in ("steps", "throughput"):
        assert [(result["keys"], result["batch"]) for result in report[part]] == settings
    numbers = [value for part in ("steps", "throughput") for result in report[part] for value in result.values()]
    assert all(value > 0 for value in numbers if value is not None)
    assert [result["seconds"] > 0 for result in report["prefill"]] == [True] * 3
    assert report["copy_bytes_per_s"] > 1e8


def test_bytes_of_the_bandwidth_limit_are_those_of_weights_and_cache(llm: bench_gpu.RandomLLM) -> None:
    cache = llm.cache(2, 5, 7)
    assert sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) == 2 * 5 * llm.key_bytes()
    used = {name: weight.nbytes for name, weight in llm.model.named_parameters() if "embed_tokens" not in name}
    assert llm.read_bytes() == sum(used.values())
    assert "lm_head.weight" in used


def test_generate_continues_from_the_cached_keys(llm: bench_gpu.RandomLLM) -> None:
    """Neither a prefill nor fewer steps than ours are in its time."""
    seen = list[tuple[int, int]]()

    def watch(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        seen.append((inputs["input_ids"].shape[1], inputs["past_key_values"].get_seq_length()))

    handle = llm.model.model.register_forward_pre_hook(watch, with_kwargs=True)
    with torch.inference_mode():
        bench_gpu.generate(llm, bench_gpu.Clock(CPU), keys=12, rows=2, count=3)
    handle.remove()
    assert seen == [(1, 11), (1, 12), (1, 13)] * 2


def test_too_little_memory_is_reported() -> None:
    def fail() -> bench_gpu.Result:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 98 GiB.")

    assert bench_gpu.attempt(fail) == {"skipped": "CUDA out of memory"}
