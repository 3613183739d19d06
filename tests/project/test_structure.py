"""The architecture: which way imports go, how large folders and modules are, what public names must explain."""

import ast
import importlib
import inspect
import pkgutil
import statistics
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

import jaxtyping
import pytest

from tests.conftest import ROOT

PACKAGES = ("extract", "datamodules", "probe")
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
}
FACES = {name: file.with_suffix(".pyi") for name, file in FILES.items() if file.with_suffix(".pyi").exists()}
FOUNDATION = {"extract.errors", "extract.heads", "extract.intervals", "extract.scores", "extract.stopping"}
"""Single modules that everything may import."""
LAYERS: dict[str, set[str]] = {
    "extract": set(),
    "datamodules": {"extract"},
    "probe": {"extract", "datamodules"},
}
"""What each package may import besides itself."""
PROBE_FLOORS = (
    {"probe.metrics", "probe.heads", "probe.models", "probe.results"},
    {"probe.attribution", "probe.diagnosis", "probe.experiments", "probe.rag"},
    {"probe.report"},
    {"probe.cli", "probe.__main__"},
)
"""Inside probe, no room imports one of a later floor."""
MOST_MODULES, MOST_LINES, MEDIAN_LINES = 12, 300, 130


@cache
def exports(package: str) -> dict[str, str]:
    """Public names of a package, and the modules that define them, from its stub."""
    found = {}
    for node in ast.parse(FACES[package].read_text()).body:
        assert isinstance(node, ast.ImportFrom)
        found |= {alias.name: f"{package}.{node.module}" for alias in node.names}
    return found


def statements(module: str) -> list[ast.ImportFrom]:
    """Every import of the project's own modules in a module, those within functions and for types included."""
    nodes = [node for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.ImportFrom)]
    return [node for node in nodes if node.module and node.module.partition(".")[0] in PACKAGES]


@cache
def imported(module: str) -> frozenset[str]:
    """Modules that a module imports; a name of a package's face counts as the module that defines it."""
    found: set[str] = set()
    for node in statements(module):
        assert node.module is not None
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            face = exports(node.module) if node.module in FACES else {}
            found.add(face.get(alias.name, submodule if submodule in FILES else node.module))
    return frozenset(found)


def room(module: str) -> str:
    """The folder of a module, two levels deep: `probe.report.exhibits.rag` lies in `probe.report`."""
    parts = module.split(".")
    return module if module in FOUNDATION else ".".join(parts[:2]) if parts[0] != "datamodules" else "datamodules"


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A cycle of a graph; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


MODULES = [module for module in FILES if module not in FACES]


def test_the_check_finds_a_cycle() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not cycle({"a": {"b", "c"}, "b": {"c"}})


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert cycle({module: set(imported(module)) for module in MODULES}) == []


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        graph.setdefault(room(module), set()).update(room(name) for name in imported(module))
    assert cycle({name: others - {name} for name, others in graph.items()}) == []


def test_packages_import_one_way() -> None:
    for module in MODULES:
        package = module.partition(".")[0]
        assert {name.partition(".")[0] for name in imported(module)} - {package} <= LAYERS[package], module


def test_rooms_of_probe_import_one_way() -> None:
    floors = {name: floor for floor, names in enumerate(PROBE_FLOORS) for name in names}
    for module in (name for name in MODULES if name.startswith("probe")):
        higher = {name for name in imported(module) if floors.get(room(name), 0) > floors[room(module)]}
        assert not higher, module


def test_other_folders_are_imported_through_their_face() -> None:
    for module in set(MODULES) - {"probe.__main__"}:
        for node in statements(module):
            source = str(node.module)
            face = source in FACES or source in FOUNDATION or room(source) == room(module)
            assert face, f"{module} imports from {source}, a module inside another folder"


def test_folders_are_small() -> None:
    for folder in {file.parent for file in FILES.values()}:
        assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= MOST_MODULES, folder


def test_modules_are_short() -> None:
    lines = {module: len(file.read_text().splitlines()) for module, file in FILES.items()}
    assert max(lines.values()) <= MOST_LINES, max(lines, key=lambda module: lines[module])
    assert statistics.median(lines[module] for module in MODULES) <= MEDIAN_LINES


def test_shapes_are_of_classes() -> None:
    """`Float[X, "row"]` needs a class X; NumPy's NDArray is one no longer, from NumPy 2.5 on."""
    arrays = {
        (name, ast.unparse(node.slice.elts[0]))
        for name, file in FILES.items()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Tuple)
        and hasattr(jaxtyping, ast.unparse(node.value))
    }
    assert {array for _, array in arrays} >= {"Tensor", "np.ndarray"}
    assert not sorted(one for one in arrays if one[1] not in {"Tensor", "np.ndarray"})


@pytest.mark.parametrize("package", FACES)
def test_public_names_are_documented(package: str) -> None:
    loaded = importlib.import_module(package)
    assert loaded.__doc__
    for name, module in exports(package).items():
        assert name not in {found.name for found in pkgutil.iter_modules(loaded.__path__)}, "a submodule has this name"
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{module}.{name} has no docstring"


FORMULAS = (
    "extract.heads",
    "extract.intervals",
    "extract.scores",
    "extract.tasks.answer_metrics",
    "probe.attribution.citations.grounding",
    "probe.attribution.grounding.labels",
    "probe.attribution.grounding.roc",
    "probe.experiments.ablation.comparison",
    "probe.experiments.ablation.heatmap_grid",
    "probe.experiments.correlation.cca",
    "probe.experiments.correlation.moments",
    "probe.experiments.correlation.step_number",
    "probe.experiments.dynamism.metrics",
    "probe.experiments.dynamism.static_sizes",
    "probe.heads.step_table",
    "probe.metrics.classification",
    "probe.metrics.evaluated",
    "probe.metrics.head_ranking",
    "probe.metrics.intervals",
    "probe.metrics.regression",
    "probe.metrics.wake_ups",
    "probe.models.losses",
    "probe.rag.strategies.windows",
    "probe.rag.triggers.rind",
)
"""Modules of metrics and formulas: each of their public functions and classes shows an example, which tests run."""


def public(module: str) -> dict[str, Any]:
    """Public functions and classes that a module defines."""
    loaded = importlib.import_module(module)
    found = {name: value for name, value in vars(loaded).items() if getattr(value, "__module__", "") == module}
    return {name: value for name, value in found.items() if not name.startswith("_") and callable(value)}


@pytest.mark.parametrize("module", FORMULAS)
def test_metrics_and_formulas_show_an_example(module: str) -> None:
    without = [name for name, value in public(module).items() if ">>>" not in (value.__doc__ or "")]
    assert without == []
