"""What is quick because it loads no heavy library: help, the list of configs, packages, and light modules."""

import gc
import os
import resource
import subprocess
import sys
from contextlib import suppress

import pytest

from probe.cli.main import uncollected_imports
from tests.conftest import ROOT
from tests.project.test_structure import FILES

PACKAGES = [name for name, file in FILES.items() if file.name == "__init__.py"]
WITHOUT_TORCH = [*PACKAGES, "extract.errors", "extract.utils.files.writing", "probe.cli.main", "probe.cli.parser"]
WITH_TORCH = ["extract.heads", "extract.scores", "probe.heads.ranking", "probe.heads.ranking_files"]
FIRST_HEAVY = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
    loaded = set(sys.argv[1].split()) & set(sys.modules)
    if loaded:
        sys.exit(f"{name} loads {sorted(loaded)}")
"""
"""Imports modules one after the other, until one of them loads what it should not."""


def fresh(*words: str) -> subprocess.CompletedProcess[str]:
    """Another interpreter, from the project's root."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


@pytest.mark.parametrize(
    ("modules", "heavy"), [(WITHOUT_TORCH, "torch lightning transformers"), (WITH_TORCH, "lightning transformers")]
)
def test_light_modules_load_no_heavy_library(modules: list[str], heavy: str) -> None:
    assert fresh("-c", FIRST_HEAVY, heavy, *modules).stderr == ""


def test_the_check_finds_a_heavy_library() -> None:
    assert len(PACKAGES) > 20
    assert (
        fresh("-c", FIRST_HEAVY, "torch", *WITHOUT_TORCH, "extract.scores").stderr == "extract.scores loads ['torch']\n"
    )


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("--help", "usage: lightning "),
        ("configs", "extract/niah.yaml"),
        ("configs --help", "--force"),
        ("report --help", "--output"),
    ],
)
def test_help_answers_within_a_second(command: str, shown: str) -> None:
    """In processor time, which other work on the machine does not lengthen."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = fresh("-m", "probe", *command.split())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert shown in done.stdout
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1


@pytest.mark.parametrize(("loaded", "enabled"), [(False, True), (True, True), (False, False)])
def test_the_collector_rests_while_a_stage_is_imported(
    loaded: bool, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where torch is loaded: then other objects than modules would stay; nor is it switched on for its user."""
    frozen, during = list[bool](), list[bool]()
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    if not loaded:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    if not enabled:
        gc.disable()
    try:
        with suppress(ImportError), uncollected_imports():
            during.append(gc.isenabled())
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    assert during == [loaded and enabled]
    assert frozen == ([False] if enabled and not loaded else [])
