"""Numeric settings: each states its range, and a number out of range is refused by its key before any work."""

import importlib
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from lightning import Callback, LightningDataModule, LightningModule

from datamodules import Split
from extract import Source, Task
from extract.errors import UserError
from extract.llm import LLM
from extract.scores import ExcludedKeys
from extract.utils import Range, annotations, check_value
from probe.cli.main import COMMANDS
from probe.experiments.ablation import Condition
from probe.models import TrainedModule
from probe.rag import Decoding, Strategy, Trigger, Windows
from tests.conftest import ROOT, Run
from tests.helpers.stores import make_store

PUBLIC = ("extract", "datamodules", "probe", "probe.rag", "probe.experiments.ablation")
BASES = (LLM, Task, Source, LightningModule, LightningDataModule, Callback, Strategy, Trigger, Condition)
NOT_SETTINGS = {"in_features", "num_heads"}
"""Arguments that the command line links."""


def configurable() -> dict[str, Any]:
    """Classes that a config names by `class_path`, and commands."""
    public = [getattr(importlib.import_module(name), symbol) for name in PUBLIC for symbol in _names(name)]
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, BASES)}
    commands = [getattr(importlib.import_module(f"probe.cli.commands.{name}"), name) for name in COMMANDS]
    return {one.__name__: one for one in [*sorted(kinds, key=lambda kind: kind.__name__), *commands]}


def _names(package: str) -> list[str]:
    return list(importlib.import_module(package).__all__)


CONFIGURABLE = configurable()


def numbers(hint: Any, place: str) -> Iterator[tuple[str, Any, Range | None]]:
    """Numeric types within a type hint: where, which, and the range that it states."""
    if get_origin(hint) is Annotated:
        yield place, get_args(hint)[0], next((one for one in hint.__metadata__ if isinstance(one, Range)), None)
    elif hint in (int, float):
        yield place, hint, None
    elif hasattr(hint, "__dataclass_fields__"):
        for name, inner in annotations(hint).items():
            yield from numbers(inner, f"{place}.{name}")
    elif get_origin(hint) in (Union, UnionType) or get_args(hint):
        for inner in get_args(hint):
            yield from numbers(inner, place)


SETTINGS = [
    (f"{owner}.{place}", owner, place, kind, limits)
    for owner, one in CONFIGURABLE.items()
    for name, hint in annotations(one).items()
    if name not in NOT_SETTINGS
    for place, kind, limits in numbers(hint, name)
]


def test_the_list_is_not_empty() -> None:
    assert {"NIAH", "ProbeRegressor", "OffsetProbes", "RagEvaluation", "Correlation", "overlap"} <= CONFIGURABLE.keys()
    assert len(SETTINGS) > 100


@pytest.mark.parametrize(("name", "limits"), [(name, limits) for name, *_, limits in SETTINGS])
def test_every_numeric_setting_states_its_range(name: str, limits: Range | None) -> None:
    assert limits is not None, f"{name}: annotate it with a type of extract.utils.ranges"
    assert not any(limits.holds(value) for value in (math.nan, math.inf, -math.inf))


@pytest.mark.parametrize(("name", "owner", "place", "kind", "limits"), SETTINGS)
def test_numbers_out_of_range_are_refused_by_their_key(
    name: str, owner: str, place: str, kind: Any, limits: Range
) -> None:
    wrong = [math.nan, math.inf, -math.inf] if kind is float else [10**30]
    wrong += [limits.low - 1, limits.high + 1] if kind is int or math.isfinite(limits.low) else []
    wrong += [limits.low] if limits.open_low else []
    wrong += [limits.high] if limits.open_high else []
    argument, *inner = place.split(".")
    hint = annotations(CONFIGURABLE[owner])[argument]
    for value in (one for one in wrong if not (kind is int and isinstance(one, float) and not one.is_integer())):
        for shape in shapes(hint, value, inner):
            with pytest.raises(UserError, match=re.escape(place.rpartition(".")[2])):
                check_value(shape, hint, argument)


def shapes(hint: Any, value: float, inner: list[str]) -> list[Any]:
    """Forms in which a config gives a number of such a hint: alone, in a list or in a mapping."""
    if inner:
        return [{inner[0]: shape} for shape in shapes(_field(hint, inner[0]), value, inner[1:])]
    origins = [get_origin(one) for one in (get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint])]
    found: list[Any] = [{"low": value}] if dict in origins else []
    if any(
        (isinstance(one, type) and one is not dict and issubclass(one, (list, tuple))) or one in SEQUENCES
        for one in origins
    ):
        found.append([value])
    return found or [value]


SEQUENCES = [get_origin(annotations(CONFIGURABLE["ProbeClassifier"])["hidden"])]


def _field(hint: Any, name: str) -> Any:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
    return next(annotations(one)[name] for one in parts if hasattr(one, "__dataclass_fields__"))


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (Split, {"fractions": (math.nan, 0.2, 0.1)}, r"Split\.fractions: at least 0 and at most 1, not nan"),
        (Split, {"limit": 0}, r"Split\.limit: at least 1, not 0"),
        (ExcludedKeys, {"sink": -4}, r"ExcludedKeys\.sink: at least 0, not -4"),
        (Windows, {"gap": -1}, r"Windows\.gap: at least 0, not -1"),
        (Decoding, {"retries": 0}, r"Decoding\.retries: at least 1, not 0"),
    ],
)
def test_settings_made_in_python_are_checked_too(kind: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        kind(**values)


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Numeric values of a config by key; those in lists are left to the test above."""
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from leaves(inner, f"{key}.{name}" if key else name)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield key, node


SHIPPED = {
    name: [(key, value) for key, value in leaves(yaml.safe_load((ROOT / name).read_text())) if ".logger." not in key]
    for name in (
        "configs/extract/niah.yaml",
        "configs/extract/hotpotqa.yaml",
        "configs/probe.yaml",
        "configs/regressor.yaml",
        "configs/offset_probes.yaml",
        "configs/dynamism.yaml",
        "configs/correlation.yaml",
        "configs/ablation/niah.yaml",
    )
}
STAGE = {"extract": "predict", "probe": "fit", "regressor": "fit", "offset_probes": "fit"}
KEYS = [
    (name, key, value)
    for name, held in SHIPPED.items()
    for key, value in held
    if key.partition(".")[0] in ("model", "data", "llm", "seed_everything")
]


@pytest.mark.parametrize(("config", "key", "value"), KEYS)
def test_nan_and_numbers_far_out_of_range_are_one_line_at_the_command_line(
    config: str, key: str, value: float, run: Run, tmp_path: Path
) -> None:
    stage = STAGE.get(config.split("/")[1].removesuffix(".yaml"), "test")
    axis = any(name in key for name in (".lengths.", ".depths."))  # of floats, which may be written as integers
    wrong = ".nan" if isinstance(value, float) or axis else -(10**12)
    code, error = run(stage, "-c", config, "--trainer.default_root_dir", tmp_path / "runs", f"--{key}={wrong}")
    assert code == 2
    (line,) = [line for line in error.splitlines() if line.startswith("error:")]
    assert key in line or key.rpartition(".")[2] in line
    assert not (tmp_path / "runs").exists()


def test_trainer_settings_may_not_be_nan(run: Run, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    options = ("--store", store, "--trainer.default_root_dir", tmp_path, "--trainer.gradient_clip_val", ".nan")
    code, error = run("fit", "-c", "configs/probe.yaml", *options)
    assert (code, "trainer.gradient_clip_val: a finite number, not nan" in error) == (2, True)


def test_signatures_are_those_of_the_classes() -> None:
    """Arguments that a class passes on with **kwargs are found in its bases."""
    found = annotations(CONFIGURABLE["ProbeClassifier"])
    assert {"clip", "dropout", "lr", "patience"} <= found.keys()
    assert found["lr"] is inspect.signature(TrainedModule).parameters["lr"].annotation
