"""Every stage on a GPU against the CPU, with tiny models; skipped where there is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from extract.attention import instrumented
from extract.generation import (
    ContextMaskedLLM,
    decode,
    full_view,
    generate_ablated,
    pad,
    prefill_prompts,
)
from extract.generation.dynamic_heads import DynamicHeads
from extract.generation.greedy import contributions_of, scored_step
from extract.generation.view_decoding import ViewDecoding
from extract.llm import LLM
from extract.utils import DelayedReads, frozen_inference
from probe.attribution import SourcedPrompts, record_answers
from probe.cli.main import main
from tests.benchmarks.bench_gpu import synchronisations
from tests.extract.attention.test_families import EXCLUDED, samples
from tests.extract.generation.test_synchronisations import conditions, requests
from tests.helpers.families import FAMILIES, save
from tests.helpers.stages import Stages

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 1, reason="needs a GPU")]
GPU, ACCELERATOR = torch.device("cuda"), "gpu"
TOLERANCE = {"atol": 1e-3, "rtol": 1e-3}
FAMILY = "llama-gqa"


@pytest.fixture(scope="module")
def folder(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that knows the embedded tokenizer's tokens."""
    family, sizes = FAMILIES[FAMILY], {"vocab_size": len(llm.tokenizer), "max_position_embeddings": 1024}
    made = type(family)(family.kind, {**family.options, **sizes}, family.without)
    return str(save(made, llm.tokenizer, tmp_path_factory.mktemp("gpu") / "llm"))


@pytest.fixture(scope="module")
def stages(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tmp_path_factory.mktemp("stages"), Path(folder)).prepare()


@pytest.fixture
def here(folder: str) -> LLM:
    return LLM(folder, prefill_chunk=13)


@pytest.fixture
def there(folder: str) -> LLM:
    llm = LLM(folder, prefill_chunk=13)
    llm.to(GPU)
    return llm


def test_extraction_with_contributions(here: LLM, there: LLM) -> None:
    a, b = (decode(llm, samples(8), EXCLUDED, sources="evidence") for llm in (here, there))
    for name in ("tokens", "argmax", "copy_paste"):
        assert getattr(a, name).equal(getattr(b, name)), name
    for name in ("hidden", "reasoning", "contribution"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), **TOLERANCE, equal_nan=True)


@pytest.mark.parametrize(
    ("target", "operator", "keep"),
    [("copy_paste", "zero", "clean"), ("reasoning", "mean", "masked"), ("contribution", "zero", "clean")],
)
def test_ablation(here: LLM, there: LLM, target: Any, operator: Any, keep: Any) -> None:
    heads = DynamicHeads(target, 0.3, EXCLUDED.sink, EXCLUDED.local)
    a, b = (generate_ablated(llm, samples(8), conditions(), heads, operator, keep) for llm in (here, there))
    for name in ("lengths", "tokens", "before", "ablated", "after"):
        assert getattr(a, name).equal(getattr(b, name)), name


@pytest.mark.parametrize("mask", ["packed", "in_place", "concat"])
def test_masked_generation(here: LLM, there: LLM, mask: Any) -> None:
    found = [ContextMaskedLLM(llm, chunk=7).generate(requests((2, 9, 9, 9), mask)) for llm in (here, there)]
    for a, b in zip(*found, strict=True):
        assert (a.tokens, a.ended) == (b.tokens, b.ended)
        assert a.entropies == pytest.approx(b.entropies, abs=1e-3)


def test_reads_of_the_full_context(here: LLM, there: LLM) -> None:
    view = full_view(samples(1)[0].ids)
    a, b = (ContextMaskedLLM(llm).read_full_context(0, view) for llm in (here, there))
    torch.testing.assert_close(a.hidden, b.hidden.cpu(), **TOLERANCE)
    torch.testing.assert_close(a.attention, b.attention.cpu(), **TOLERANCE)


def test_attribution_records(here: LLM, there: LLM) -> None:
    documents = (["Ada sings. She is tall.", "Bo left in a boat."], ["The key is 7f3. Nobody knows it."])
    found = []
    for llm in (here, there):
        maker = SourcedPrompts(llm)
        prompts = [maker.build(f"Who is number {n}?", texts) for n, texts in enumerate(documents)]
        found.append(record_answers(llm, prompts, budget=8))
    for a, b in zip(*found, strict=True):
        assert a.tokens.equal(b.tokens)
        for name in ("log_probs", "attention", "contribution", "hidden"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), **TOLERANCE)


class TestSynchronisations:
    """PyTorch's sync debug mode on the loops of which `test_synchronisations` emulates the device."""

    @pytest.mark.parametrize("sources", [None, "evidence"])
    def test_a_recorded_step_waits_for_nothing(self, there: LLM, sources: Any) -> None:
        with frozen_inference():
            batch = pad(samples(12), 0, GPU)
            cache = prefill_prompts(there.model, batch, batch.tokens.shape[1])
            contributions, reads = contributions_of(there, batch, sources), DelayedReads(GPU)
            with instrumented(there.model):
                for step in range(12):
                    torch.cuda.set_sync_debug_mode("error" if step else "default")  # the first one sets things up
                    keys = batch.width + step
                    generated, *_ = scored_step(there, batch, cache, keys, EXCLUDED, contributions)
                    if keys < batch.tokens.shape[1]:
                        batch.tokens[:, keys] = generated
                    reads.put(generated.sum())

    @pytest.fixture(autouse=True)
    def _restored(self) -> Any:
        yield
        torch.cuda.set_sync_debug_mode("default")

    def test_a_step_of_masked_generation_waits_for_nothing(self, there: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        run = ViewDecoding.run

        def checked(decoding: ViewDecoding) -> Any:
            torch.cuda.set_sync_debug_mode("error")
            found = run(decoding)
            torch.cuda.set_sync_debug_mode("default")
            return found

        ContextMaskedLLM(there).generate(requests((2, 9, 9, 9), "packed"))
        monkeypatch.setattr(ViewDecoding, "run", checked)
        ContextMaskedLLM(there).generate(requests((2, 9, 9, 9), "packed"))

    def test_a_step_of_ablation_waits_twice(self, there: LLM) -> None:
        heads = DynamicHeads("reasoning", 0.01, EXCLUDED.sink, EXCLUDED.local)

        def run(steps: int) -> Callable[[], object]:
            return lambda: generate_ablated(there, samples(steps), conditions(), heads)

        run(2)()
        assert synchronisations(run(9)) - synchronisations(run(3)) == 2 * 6


@pytest.mark.filterwarnings("default")  # Lightning's: of another folder, of few workers
class TestStages:
    """Commands with `trainer.accelerator: gpu`, each beside the same one on the CPU."""

    @pytest.fixture
    def outputs(self, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
        """Runs a stage on both; the folder of each."""

        def call(stage: str, *more: object) -> list[Path]:
            folders = [tmp_path / "cpu", tmp_path / "gpu"]
            for folder, accelerator in zip(folders, ("cpu", ACCELERATOR), strict=True):
                folder.mkdir()
                monkeypatch.chdir(folder)
                place = "--trainer.accelerator", accelerator, "--trainer.devices", 1
                assert main(stages.argv(stage, *place, *more)) == 0
            return folders

        return call

    @pytest.mark.parametrize("stage", ["test classifier", "test regressor", "test rag"])
    def test_results(self, outputs: Callable[..., list[Path]], stage: str) -> None:
        files = [next(folder.rglob("results.json")) for folder in outputs(stage)]
        one, other = ({**json.loads(file.read_text()), "versions": None, "software": None} for file in files)
        assert numbers(one) == pytest.approx(numbers(other), abs=1e-3, nan_ok=True)
        assert len(numbers(one)) > 10

    @pytest.mark.parametrize("kind", ["classifier", "regressor"])
    def test_training(self, outputs: Callable[..., list[Path]], kind: str) -> None:
        """Without dropout, whose random numbers are the device's own."""
        files = [next(folder.rglob("best.ckpt")) for folder in outputs(f"fit {kind}", "--model.init_args.dropout", 0)]
        weights = [torch.load(file, map_location="cpu", weights_only=False)["state_dict"] for file in files]
        torch.testing.assert_close(*weights, **TOLERANCE)


def numbers(tree: Any, path: str = "") -> dict[str, float]:
    """Every number of a tree by its path."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: value for key, part in items for name, value in numbers(part, f"{path}/{key}").items()}
    return {path: float(tree)} if isinstance(tree, int | float) and not isinstance(tree, bool) else {}
