"""Fixtures: the embedded LLM, a tiny random one, and the command line in this process."""

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a network
gc.disable()  # until all modules are imported: its passes over them take a quarter of the time

from jaxtyping import install_import_hook

# Shapes and dtypes in signatures are checked (`tests.helpers.shape_checks`); it must come before a module's import.
CHECKED = (
    "extract.heads",
    "extract.intervals",
    "extract.scores",
    "extract.contribution.frozen_norm",
    "extract.contribution.readout",
    "extract.contribution.sources",
    "extract.contribution.logit_contributions",
    "extract.attention.interface",
    "extract.attention.recorder",
    "extract.attention.recording_plan",
    "extract.generation.prefill",
    "extract.generation.batching",
    "extract.generation.greedy",
    "extract.generation.continuous",
    "extract.generation.ablation.output",
    "extract.generation.dynamic_heads",
    "extract.attention.shared_prefix",
    "extract.attention.softmax",
    "extract.store.sample_steps",
    "extract.generation.context_masking",
    "extract.generation.view_decoding",
    "extract.generation.longrope",
    "extract.attention.received",
    "extract.generation.ablation.two_passes",
    "probe.models.losses",
    "probe.models.mlp",
    "probe.metrics.classification",
)
PROBES = (
    "probe.experiments.ablation.heatmap_grid",
    "probe.experiments.ablation.conditions",
    "probe.metrics.intervals",
    "probe.experiments.ablation.outcomes",
    "probe.experiments.ablation.trial",
    "probe.experiments.correlation.cca",
    "probe.models.regressor",
    "probe.metrics.regression",
    "probe.metrics.head_ranking",
    "probe.models.ridge",
    "probe.models.plots",
    "probe.models.offset_probes",
    "probe.heads.ranking",
    "probe.heads.static_heads",
    "probe.heads.overlap",
    "probe.experiments.ablation.answering",
    "probe.report.explorer",
    "probe.rag.strategies.head_strategies",
    "probe.rag.results.outcomes",
    "probe.rag.strategies.base",
    "probe.rag.strategies.windows",
    "probe.metrics.gathered_rows",
    "probe.attribution.citations.attributed_answer",
    "probe.attribution.citations.grounding",
    "probe.attribution.citations.html_view",
    "probe.attribution.grounding.roc",
    "probe.attribution.grounding.scores",
    "probe.experiments.dynamism.metrics",
    "probe.attribution.ablated_runs",
    "probe.attribution.learned.batches",
    "probe.attribution.learned.choice",
    "probe.attribution.learned.effects",
    "probe.attribution.learned.weights",
    "probe.attribution.masks",
    "probe.attribution.methods.learned_heads",
    "probe.attribution.metrics",
    "probe.attribution.methods.base",
    "probe.attribution.methods.heads",
    "probe.attribution.methods.ablations",
    "probe.attribution.methods.prior",
    "probe.attribution.record",
    "probe.diagnosis.critical_token",
    "probe.diagnosis.decoding",
    "probe.diagnosis.statistics",
)
install_import_hook([*CHECKED, *PROBES], "beartype.beartype")

import lightning.pytorch  # noqa: F401 (its log goes to the stderr of its import, which must outlive a single test)
from hypothesis import settings

from extract.llm import LLM
from probe.cli.main import main
from tests.helpers.browser import browser  # noqa: F401 (a fixture)
from tests.helpers.loaded_tokenizers import loaded_tokenizers  # noqa: F401 (a fixture)
from tests.helpers.model_shapes import save_tiny_llama
from tests.helpers.processes import quick_spawn  # noqa: F401 (a fixture)
from tests.helpers.shape_checks import spared_checks  # noqa: F401 (a fixture)

settings.register_profile("project", deadline=None)  # a busy machine is no failure
settings.load_profile("project")


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not visit it again, nor what remains of a test so often."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


ROOT = Path(__file__).parent.parent
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session", autouse=True)
def _from_root() -> None:
    """Configs name each other and their stores relative to the project's root."""
    os.chdir(ROOT)


@pytest.fixture(scope="session")
def llm() -> LLM:
    """SmolLM2-135M-Instruct, float32."""
    return LLM()


@pytest.fixture(scope="session")
def tiny_llm_folder(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 3-layer Llama with grouped heads and the embedded tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-llm")
    save_tiny_llama(llm, folder)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`lightning …` in this process: its exit code and what it wrote to stderr."""

    def call(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def measured(run: Run, tmp_path: Path) -> Callable[..., Any]:
    """`lightning test` of a measurement's shipped config on a store: its results, or its refusal."""

    def call(config: str, store: Path, *args: object) -> Any:
        out = tmp_path / "out"
        code, said = run(
            *("test", "-c", f"configs/{config}.yaml", "--store", store, "--trainer.accelerator", "cpu"),
            *("--trainer.default_root_dir", tmp_path / "runs"),
            *("--trainer.logger.init_args.save_dir", tmp_path / "runs"),
            *("--trainer.enable_progress_bar", "false", "--artifacts.init_args.folder", out, *args),
        )
        return said if code else json.loads((out / "results.json").read_text())

    return call


@pytest.fixture
def extract_tiny(run: Run, tiny_llm_folder: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """`lightning predict` of 5 short prompts with the tiny LLM."""

    def call(store: Path, *args: object) -> tuple[int, str]:
        return run(
            "predict",
            *("-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_niah.yaml"),
            *("--llm.init_args.name", tiny_llm_folder, "--store", store),
            *("--trainer.default_root_dir", tmp_path / "runs", *args),
        )

    return call
