"""`--safe`: configs of the project run, and no config imports anything that is not known."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import jsonargparse
import pytest
import yaml

from extract.errors import UserError
from probe.cli.config.config_text import bound_texts
from probe.cli.config.safe import check_classes, known_classes
from probe.cli.main import main
from tests.conftest import ROOT, Run
from tests.project.test_configs import CONFIGS, commands, without_checkpoint

TOUCH = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "imported.txt"]}}
OUTSIDE = [
    "os.system",
    "subprocess.Popen",
    "hostile.Thing",
    "torch.hub.load",
    "torch.load",
    "torch.utils.cpp_extension.load",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.loggers.WandbLogger",
    "lightning.pytorch.loggers.tensorboard.os.system",
    "extract.llm.gguf.os.system",
    "extract.utils.write_bytes",
    "torch.nn.Module.apply",
    "LambdaCallback",
    "jsonargparse.set_parsing_settings",
]


@pytest.fixture(autouse=True)
def _unsafe_again() -> Iterator[None]:
    """What is allowed holds for a process; here the next test is another one."""
    with patch.dict(jsonargparse._common.parsing_settings), patch.object(sys, "meta_path", sys.meta_path[:]):
        yield
    bound_texts(safe=False)


@pytest.fixture
def refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The line by which a run in a folder with a hostile module is refused; nothing of it was imported or begun."""
    (tmp_path / "hostile.py").write_text("open('imported.txt', 'w')\nclass Thing: ...\n")
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> str:
        code, error = run("fit", "-c", "probe.yaml", *args, "--safe")
        assert code == 2
        (line,) = error.splitlines()
        assert "hostile" not in sys.modules
        assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".yaml") == ["hostile.py"]
        return line

    return call


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_class_that_is_not_known_is_refused(path: str) -> None:
    with pytest.raises(UserError) as refusal:
        check_classes({"trainer": {"callbacks": [{"class_path": path}]}})
    assert str(refusal.value).startswith(
        f"trainer.callbacks.0.class_path: {path} is not one of the classes that --safe"
    )


@pytest.mark.parametrize("path", ["os.system", "hostile.Thing"])
def test_a_class_that_is_not_known_is_refused_in_a_config(path: str, refused: Callable[..., str]) -> None:
    Path("theirs.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": path}]}}))
    line = refused("-c", "theirs.yaml")
    assert line.startswith(
        f"error: trainer.callbacks.0.class_path: {path} is not one of the classes that --safe allows"
    )


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (["--model", "hostile.Thing"], "model"),
        (["--model.class_path", "hostile.Thing"], "model.class_path"),
        (["--trainer.callbacks+=hostile.Thing"], "trainer.callbacks"),
        (["--trainer.callbacks", "[hostile.Thing]"], "trainer.callbacks"),
        (["--trainer.callbacks", json.dumps([TOUCH])], "trainer.callbacks.0.class_path"),
        (["--trainer.callbacks+", json.dumps(TOUCH)], "trainer.callbacks.class_path"),
        (["--model.dict_kwargs", json.dumps({"deep": [TOUCH]})], "model.dict_kwargs.deep.0.class_path"),
        (["--data.init_args.split", json.dumps({"fractions": TOUCH})], "data.init_args.split.fractions.class_path"),
        (["-c", "{model: {class_path: hostile.Thing}}"], "model.class_path"),
        (["-c", json.dumps({"model": {"dict_kwargs": TOUCH}})], "model.dict_kwargs.class_path"),
        (["--llm", "hostile.Thing"], "llm"),
    ],
)
def test_a_class_that_is_not_known_is_refused_anywhere(args: list[str], key: str, refused: Callable[..., str]) -> None:
    assert refused(*args).startswith(f"error: {key}: ")


def test_a_file_that_a_config_names_is_checked_too(refused: Callable[..., str]) -> None:
    Path("inner.yaml").write_text(yaml.safe_dump(TOUCH))
    Path("outer.yaml").write_text("model: inner.yaml\n")
    assert "subprocess.Popen is not one of the classes" in refused("-c", "outer.yaml")
    assert "subprocess.Popen is not one of the classes" in refused("--model", "inner.yaml")


@pytest.mark.parametrize(
    "option", ["--llm.init_args.trust_remote_code true", "--llm.init_args.allow_pickle true", "--weights_only false"]
)
def test_settings_by_which_data_run_code_are_refused(option: str, refused: Callable[..., str]) -> None:
    key = option.split(maxsplit=1)[0].removeprefix("--")
    assert refused(*option.split()).startswith(f"error: {key}: ")


@pytest.mark.parametrize("config", CONFIGS)
def test_shipped_configs_name_known_classes_only(config: str) -> None:
    check_classes(yaml.safe_load(CONFIGS[config]))


@pytest.mark.parametrize("config", ["configs/rag.yaml", "configs/demo/ablation.yaml"])
def test_shipped_configs_parse_under_safe(config: str, run: Run) -> None:
    with pytest.raises(SystemExit) as stop:
        run(*without_checkpoint(commands(config)[0]), "--print_config", "--safe")
    assert stop.value.code == 0


def test_known_classes_are_classes_of_the_three_owners() -> None:
    assert {"probe.ProbeClassifier", "extract.tasks.niah.NIAH", "lightning.pytorch.callbacks.ModelCheckpoint"} < (
        known_classes()
    )
    assert not known_classes() & set(OUTSIDE)
    with pytest.raises(UserError, match=r"a\.b\.class_path: "):
        check_classes({"b": {"class_path": ["os.system"]}}, "a")


def test_the_switch_is_no_key_of_a_config_and_holds_wherever_it_is(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--safe", "fit", "-c", str(ROOT / "configs/probe.yaml"), "--print_config"])
    assert "safe" not in yaml.safe_load(capsys.readouterr().out)
    assert run("--safe", "fit", "-c", "probe.yaml", "--model", "os.system")[0] == 2
    code, error = run("fit", "-c", "probe.yaml", "--saf", "--model", "os.system")
    assert (code, "--saf" in error) == (2, True)
    assert run("--safe", "configs") == (0, "")


def test_keys_of_callbacks_are_checked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--rag", "os.system"], ["--writer.class_path", "os.system"], ["--checkpoint", "nope.Thing"]):
        code, said = run("test", "-c", "rag.yaml", "--store", "s", "--safe", *words)
        assert code == 2 and "is not one of the classes that --safe allows" in said, said
