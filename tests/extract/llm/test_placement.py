"""Placement and quantization of a model: devices and disk change no row, quantized weights are scored as they are."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from extract.errors import UserError
from extract.generation import decode
from extract.llm import LLM
from extract.pipeline import Extraction
from tests.conftest import Run
from tests.extract.attention.test_families import EXCLUDED, follows, samples
from tests.helpers import reference
from tests.helpers.families import FAMILIES, Family, save

GPUS = torch.cuda.device_count()
gpu = [pytest.mark.gpu, pytest.mark.skipif(GPUS < 1, reason="needs a GPU")]
gpus = [pytest.mark.gpu, pytest.mark.skipif(GPUS < 2, reason="needs two GPUs")]
bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes, which nothing else here does"
)
WIDE = Family("Llama", {"hidden_size": 128, "intermediate_size": 256, "initializer_range": 0.1})
"""Wide enough for blocks of 64 weights that share a scale."""
PLACES = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}


@pytest.mark.parametrize(
    ("held", "dtype", "slow"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, "bfloat16", True),
        ({}, "bfloat16", True),
        ({"neon": True}, "bfloat16", True),
        ({}, "float32", False),
        ({"avx512_bf16": True}, "bfloat16", False),
        ({"amx_bf16": True}, "bfloat16", False),
        ({"neon": True, "bf16": True}, "bfloat16", False),
    ],
)
def test_bfloat16_on_a_cpu_without_its_instructions_is_said_once(
    held: dict[str, bool], dtype: Any, slow: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: held, raising=False)
    one = LLM(dtype=dtype)
    monkeypatch.setattr(LLM, "_pretrained", SimpleNamespace(model=lambda **_: torch.nn.Linear(1, 1)))
    with caplog.at_level("INFO"):
        one.to(torch.device("cpu"))
        one.to(torch.device("cpu"))
    said = [line for line in caplog.messages if line.startswith("llm.dtype bfloat16: this CPU has no instructions")]
    assert len(said) == len(caplog.messages) == slow


@pytest.fixture
def folder(llm: LLM, tmp_path: Path) -> Path:
    return save(FAMILIES["llama-mha"], llm.tokenizer, tmp_path / "tiny")


def same(one: LLM, other: LLM, tolerance: float) -> None:
    """Rows of both: tokens and places equal, hidden states within the tolerance."""
    a, b = decode(one, samples(4), EXCLUDED), decode(other, samples(4), EXCLUDED)
    for name in ("tokens", "argmax", "copy_paste"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    torch.testing.assert_close(a.hidden, b.hidden, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("places", ["auto", PLACES], ids=["auto", "cpu and disk"])
def test_placement_by_accelerate_changes_nothing_and_is_left_alone(folder: Path, places: Any) -> None:
    """With layers on disk the model runs within accelerate's hooks, as it does over several devices."""
    placed = LLM(str(folder), device_map=places)
    placed.to(torch.device("meta"))  # would lose every weight
    same(placed, LLM(str(folder)), 0)


def test_a_placed_model_needs_one_process(folder: Path) -> None:
    stage = Extraction(LLM(str(folder), device_map="auto"))
    stage._trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"device_map spreads one model over devices, so it needs `trainer.devices: 1`"):
        stage.place_llm()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"quant_method": "nonsense"}, "Unknown quantization type, got nonsense"),
        ({"load_in_9bit": True}, "has no `quant_method` attribute"),
        pytest.param(
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            "requires bitsandbytes",
            marks=pytest.mark.skipif(not bitsandbytes.args[0], reason="bitsandbytes is installed"),
        ),
    ],
)
def test_a_quantisation_that_cannot_be_is_one_line(folder: Path, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        _ = LLM(str(folder), quantization=settings).model


@bitsandbytes
@pytest.mark.filterwarnings("default")  # the library's own
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_model_is_scored_as_it_is(llm: LLM, tmp_path: Path, bits: int) -> None:
    """Scores equal eager attention of the same quantised weights, in bfloat16."""
    settings = {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}
    options: dict[str, Any] = {"dtype": "bfloat16", "quantization": settings}
    folder = str(save(WIDE, llm.tokenizer, tmp_path))
    made, eager = LLM(folder, **options), LLM(folder, **options, attention="eager")
    made.to(torch.device("meta"))  # left alone
    assert f"load_in_{bits}bit: True" in made.identity.dtype
    decoded = decode(made, samples(4), EXCLUDED)
    for row, sample in enumerate(samples(4)):
        answer = decoded.tokens[row, : decoded.lengths[row]].tolist()
        follows(decoded, row, sample, reference.replay(eager.model, sample.ids, answer), 0.1, 0.01)


class TestGPU:
    """Ready for a machine with GPUs; skipped elsewhere."""

    pytestmark = gpu

    @pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "gpt-oss", "deepseek-v3", "mistral"])
    def test_rows_are_those_of_the_cpu(self, llm: LLM, tmp_path: Path, name: str) -> None:
        folder = str(save(FAMILIES[name], llm.tokenizer, tmp_path))
        there = LLM(folder)
        there.to(torch.device("cuda"))
        assert there.model.device.type == "cuda"
        same(there, LLM(folder), 1e-3)

    def test_the_stage_runs_there(self, run: Run, tiny_llm_folder: Path, tmp_path: Path) -> None:
        code, said = run(
            "predict",
            *("-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_niah.yaml"),
            *("--llm.init_args.name", tiny_llm_folder, "--llm.init_args.dtype", "bfloat16"),
            *("--store", tmp_path / "s", "--trainer.accelerator", "gpu", "--trainer.devices", 1),
            *("--trainer.default_root_dir", tmp_path / "runs"),
        )
        assert code == 0, said


class TestGPUs:
    """Ready for a machine with two GPUs; skipped elsewhere."""

    pytestmark = gpus

    def test_layers_on_two_devices(self, folder: Path) -> None:
        places = {name: 1 if place == "disk" else 0 for name, place in PLACES.items()}
        same(LLM(str(folder), device_map=places), LLM(str(folder)), 1e-3)

    def test_the_stage_shares_out_its_batches(self, run: Run, tiny_llm_folder: Path, tmp_path: Path) -> None:
        code, said = run(
            "predict",
            *("-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_niah.yaml"),
            *("--llm.init_args.name", tiny_llm_folder, "--store", tmp_path / "s"),
            *("--trainer.accelerator", "gpu", "--trainer.devices", 2, "--trainer.strategy", "ddp"),
            *("--trainer.default_root_dir", tmp_path / "runs"),
        )
        assert code == 0, said
