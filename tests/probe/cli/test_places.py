"""Places of configs: the store's name, environment variables, `~`, and paths relative to the config."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace

from extract.errors import UserError
from extract.utils import with_store_name
from probe.cli.config.places import SAVED, is_path, reading, relative_to_config, resolve_places
from tests.conftest import ROOT, Run
from tests.helpers.bad_input import TINY
from tests.helpers.stores import make_store

BASES = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if "default_root_dir" in path.read_text()]
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")


def resolved(store: str = "stores/one", **config: Any) -> Any:
    """A config with its places."""
    found = Namespace(store=store, **config)
    resolve_places(found)
    return found


def texts(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [text for inner in (value.values() if isinstance(value, dict) else value) for text in texts(inner)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("config", BASES, ids=lambda path: path.stem)
def test_no_place_of_a_shipped_config_is_shared_by_two_stores(config: Path) -> None:
    def places(store: str) -> set[str]:
        found = json.loads(json.dumps(yaml.safe_load(config.read_text())), object_hook=lambda one: Namespace(**one))
        found["store"] = store
        resolve_places(found)
        return {text for text in texts(found.as_dict()) if text.startswith(("runs/", "ckpts/", "classifier/"))}

    one, other = places("stores/one"), places("elsewhere/other/")
    assert one and not one & other
    assert {text.replace("one", "other") for text in one} == other


def test_two_stores_share_neither_checkpoints_nor_logs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second model's `fit` leaves every file of the first one's as it was."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    saved: dict[Path, bytes] = {}
    for name in ("one", "two"):
        make_store(Path("stores", name))
        argv = ("fit", "-c", "probe.yaml", "-c", "tiny.yaml", *QUIET, "--store", f"stores/{name}")
        assert run(*argv)[0] == 0
        assert Path("ckpts", name, "classifier", "best.ckpt").exists()
        assert {path: path.read_bytes() for path in saved} == saved
        saved = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    (config,) = Path("runs/classifier/two").rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["checkpoint"]["init_args"]["dirpath"] == "ckpts/two/classifier"
    checkpoint = ("--ckpt_path", "ckpts/{store}/classifier/best.ckpt")
    assert run("test", "-c", config, *QUIET, *checkpoint)[0] == 0
    assert len(list(Path("runs/classifier/two").rglob("results.json"))) == 1


@pytest.mark.parametrize(
    ("store", "name"), [("stores/x", "x"), ("stores/x/", "x"), ("stores/x/..", "stores"), ("/a b", "a b")]
)
def test_a_stores_name_is_one_folder(store: str, name: str) -> None:
    assert with_store_name("ckpts/{store}/{store}", store) == f"ckpts/{name}/{name}"


@pytest.mark.parametrize("store", ["/", "", "//"])
def test_a_store_without_a_name_is_refused(store: str) -> None:
    with pytest.raises(UserError, match="this folder has no name"):
        resolved(store, checkpoint=Namespace(init_args=Namespace(dirpath="ckpts/{store}")))
    resolved(store, checkpoint=Namespace(init_args=Namespace(dirpath="ckpts/mine")))


def test_paths_are_expanded_and_other_texts_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    needle = "~ $DATA ${NONE} {store} ./x"
    task = Namespace(haystack="$DATA/text", files=["${DATA}/a", "b"], texts=Namespace(needle=needle, template=needle))
    found = resolved(
        "$DATA/one",
        llm=Namespace(class_path="extract.LLM", init_args=Namespace(name="$DATA/llm")),
        data=Namespace(class_path="$DATA.Prompts", init_args=Namespace(task=task)),
        checkpoint=Namespace(init_args=Namespace(dirpath="~/{store}")),
        trainer=Namespace(logger=[Namespace(init_args=Namespace(save_dir="$DATA", name="a/{store}"))]),
        model=Namespace(init_args=Namespace(name="$DATA {store}", trials="$DATA/{store}/t")),
    ).as_dict()
    assert (found["store"], found["llm"]["init_args"]["name"]) == ("/data/one", "/data/llm")
    task = found["data"]["init_args"]["task"]
    assert (task["haystack"], task["files"]) == ("/data/text", ["/data/a", "b"])
    assert set(task["texts"].values()) == {needle} and found["data"]["class_path"] == "$DATA.Prompts"
    assert found["checkpoint"]["init_args"]["dirpath"] == f"{tmp_path}/one"
    assert found["trainer"]["logger"] == [{"init_args": {"save_dir": "/data", "name": "a/one"}}]
    assert found["model"]["init_args"] == {"name": "$DATA {store}", "trials": "/data/one/t"}


def test_an_undefined_variable_is_one_line(run: Run, tmp_path: Path) -> None:
    code, said = run("test", "-c", "dynamism.yaml", "--store", "$DRH_NOWHERE/x")
    assert code == 2
    assert said.splitlines()[-1] == "error: store: the environment variable DRH_NOWHERE of $DRH_NOWHERE/x is not set"


def test_dotted_paths_of_a_file_are_relative_to_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf").mkdir()
    task = {"haystack": "../text.txt", "texts": {"template": "./{context}"}}
    config = {
        "store": "./s",
        "llm": {"init_args": {"name": "./llm"}},
        "data": {"init_args": {"task": {"init_args": task}}},
    }
    (tmp_path / "conf" / "mine.yaml").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)

    def printed(*argv: object) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            run("predict", "-c", "extract/niah.yaml", *argv, "--print_config")
        return yaml.safe_load(capsys.readouterr().out)

    found = printed("-c", "conf/mine.yaml")
    task = found["data"]["init_args"]["task"]["init_args"]
    assert (found["store"], found["llm"]["init_args"]["name"]) == ("conf/s", "conf/llm")
    assert (task["haystack"], task["texts"]["template"]) == ("text.txt", "./{context}")
    assert printed("-c", tmp_path / "conf/mine.yaml")["store"] == str(tmp_path / "conf/s")
    assert printed("-c", "conf/mine.yaml", "--store", "./s")["store"] == "./s"
    # What was printed, or saved by a run, holds paths of the working folder.
    (tmp_path / "conf" / "saved.yaml").write_text(f"{SAVED}2.6\nstore: ./s\n")
    assert printed("-c", "conf/saved.yaml")["store"] == "./s"
    monkeypatch.chdir(tmp_path / "conf")
    assert printed("-c", "mine.yaml")["store"] == "./s"


def test_text_that_is_no_file_has_no_folder() -> None:
    for value in ("trainer: {max_epochs: 3}", "a\nb: c", "x" * 10_000):
        with reading(value):
            assert relative_to_config({"store": "./s"}) == {"store": "./s"}


PATHS_OF_CLASSES = "store test_store haystack files ranking static trials folder dirpath save_dir ckpt_path".split()


@pytest.mark.parametrize("key", PATHS_OF_CLASSES)
def test_keys_of_paths(key: str) -> None:
    assert is_path(("model", key)) and not is_path((key, "class_path"))
