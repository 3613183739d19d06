"""Bad input through the command line: one line, a non-zero exit code, nothing written."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from extract.llm import LLM
from tests.conftest import ROOT, Run
from tests.extract.store.test_score_store import command, damage
from tests.helpers.stores import make_store

Extract = Callable[..., tuple[int, str]]
TASK = "--data.init_args.task.init_args"


def lines(error: str) -> list[str]:
    return [line for line in error.splitlines() if line.startswith("error:")]


@pytest.fixture
def one_line(run: Run) -> Callable[..., str]:
    """The single error line of a command that must fail."""

    def call(*args: object) -> str:
        code, error = run(*args)
        assert code == 2
        assert "Traceback" not in error
        (line,) = lines(error)
        return line

    return call


def fit(store: Path) -> tuple[object, ...]:
    return ("fit", "-c", "configs/probe.yaml", "--store", store, "--trainer.default_root_dir", store.parent)


def test_no_store_yet_names_the_command(one_line: Callable[..., str], tmp_path: Path) -> None:
    line = one_line(*fit(tmp_path / "none"))
    assert line.endswith(f"make it with: lightning predict -c configs/extract/niah.yaml --store {tmp_path / 'none'}")
    assert list(tmp_path.iterdir()) == []


def test_store_problems(one_line: Callable[..., str], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    damage(store / "steps" / "000000.arrow", "flipped")
    assert "does not match its sha256" in one_line(*fit(store))
    truncated = make_store(tmp_path / "t")
    damage(truncated / "steps" / "000000.arrow", "truncated")
    assert "bytes instead of" in one_line(*fit(truncated))
    edited = make_store(tmp_path / "u")
    manifest = json.loads((edited / "manifest.json").read_text())
    (edited / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    assert "was edited" in one_line(*fit(edited))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--llm.init_args.name", "nobody/nothing"), "llm 'nobody/nothing': cannot be loaded"),
        (("--llm.init_args.name", "embedded:other"), "there is embedded:smollm2"),
        (("--llm.init_args.name", "/etc"), "holds no config.json"),
        (("--llm.init_args.name", "/none.gguf"), "no such file"),
        (("--llm", "null"), "no `llm:` in the config"),
        ((f"{TASK}.lengths", "[9000]"), "lower `lengths`"),
        ((f"{TASK}.haystack", "/nowhere"), "no such file or folder"),
        ((f"{TASK}.haystack", "/dev/null"), "no such file or folder"),
        ((f"{TASK}.lengths", "{low: 1, step: 2}"), "not the keys ['low', 'step']"),
        (("--trainer.max_epohcs", "3"), "did you mean 'trainer.max_epochs'?"),
        ((f"{TASK}.lenghts", "[3]"), "did you mean 'lengths'?"),
        (("--data.init_args.batch_size", "many"), "Expected a <class 'int'>. Got value: many"),
        (("--data.init_args.batch_size", "0"), "data.init_args.batch_size: at least 1, not 0"),
        (("--data.init_args.task.class_path", "extract.NIHA"), "No extract attribute NIHA (did you mean 'NIAH'?)"),
    ],
)
def test_extraction(
    options: tuple[str, ...],
    message: str,
    tiny_llm_folder: Path,
    one_line: Callable[..., str],
    tmp_path: Path,
) -> None:
    stage = ("predict", "-c", "configs/extract/niah.yaml", "-c", "tests/configs/tiny_niah.yaml")
    where = ("--store", tmp_path / "s", "--trainer.default_root_dir", tmp_path / "runs")
    name = () if options[0] in ("--llm.init_args.name", "--llm") else ("--llm.init_args.name", tiny_llm_folder)
    assert message in one_line(*stage, *where, *name, *options)
    assert not (tmp_path / "s").exists()


def test_yaml_typo(one_line: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("trainer:\n  max_epoch: 3\n")
    assert "'trainer.max_epoch' (did you mean 'trainer.max_epochs'?)" in one_line(
        "fit", "-c", "configs/probe.yaml", "-c", tmp_path / "typo.yaml"
    )
    (tmp_path / "broken.yaml").write_text("trainer: [1, 2\ndata: }")
    assert "Problems parsing config" in one_line("fit", "-c", tmp_path / "broken.yaml")
    assert "does not exist" in one_line("fit", "-c", tmp_path / "none.yaml")
    assert "invalid choice: 'train'" in one_line("train", "-c", "configs/probe.yaml")


def test_tokenizer_without_offsets(llm: LLM, extract_tiny: Extract, tiny_llm_folder: Path, tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    folder = tmp_path / "slow"
    folder.mkdir()
    for file in ("config.json", "generation_config.json", "model.safetensors"):
        (folder / file).symlink_to(tiny_llm_folder / file)
    ByT5Tokenizer().save_pretrained(folder)
    code, error = extract_tiny(tmp_path / "s", "--llm.init_args.name", folder)
    assert code == 2
    assert "ByT5Tokenizer) gives no character offsets" in lines(error)[0]
    assert not (tmp_path / "s").exists()


def test_a_store_below_a_file_cannot_be_written(extract_tiny: Extract, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    code, error = extract_tiny(tmp_path / "file" / "store")
    assert code == 2
    assert "Not a directory; choose another --store" in lines(error)[0]
    assert (tmp_path / "file").read_text() == "mine"


def test_checkpoints(one_line: Callable[..., str], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    test = ("test", *fit(store)[1:])
    assert "this probe is untrained: add --ckpt_path" in one_line(*test)
    assert "no checkpoint at" in one_line(*test, "--ckpt_path", tmp_path / "none.ckpt")
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    assert "not a readable checkpoint" in one_line(*test, "--ckpt_path", tmp_path / "junk.ckpt")
    target = (*fit(store), "--data.init_args.target", "reasoning")
    assert "data.target is reasoning, but ProbeClassifier predicts copy_paste" in one_line(*target)


@pytest.mark.slow
def test_a_disk_full_in_mid_run_is_one_line_and_the_run_goes_on_later(
    extract_tiny: Callable[..., tuple[int, str]], tiny_llm_folder: Path, tmp_path: Path
) -> None:
    """`ulimit -f` makes the first large file fail as a full disk does."""
    batches = ("--data.init_args.batch_size", 5)
    stage = command(tmp_path / "s", tiny_llm_folder, tmp_path / "runs", *batches)
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *stage]
    failed = subprocess.run(limited, capture_output=True, text=True, cwd=ROOT, check=False)
    assert failed.returncode == 2
    (line,) = lines(failed.stderr)
    assert "cannot write" in line
    assert "File too large" in line
    assert not (tmp_path / "s").exists()  # no batch was finished
    assert extract_tiny(tmp_path / "s", *batches)[0] == 0


def test_debug_variable_shows_the_traceback(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extract.errors import UserError

    monkeypatch.setenv("RETRIEVAL_HEADS_DEBUG", "1")
    with pytest.raises(UserError):
        run(*fit(tmp_path / "none"))
