"""The command line: `lightning {predict,fit,validate,test} -c config.yaml`."""

import gc
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pkgutil import resolve_name

from extract.utils import clean_logs
from probe.cli.import_path import set_import_path
from probe.cli.stopping.stoppable import reporting, stoppable

HELP = """\
usage: lightning {predict,fit,validate,test} -c CONFIG [-c OVERLAY …] [--KEY VALUE …]

See, test and predict which attention heads of a language model copy from its context, token by token.

stages, each a config file:
  predict -c configs/extract/niah.yaml       extract: run the frozen LLM on needle-in-a-haystack prompts and store the
                                             hidden state and all heads' scores of every generated token;
          -c configs/extract/hotpotqa.yaml   the same on multi-hop questions with known supporting facts
  fit     -c configs/probe.yaml              train the paper's classifier on a score store of needle prompts,
          -c configs/regressor.yaml          or its regressor on one of questions; overlays: configs/regressor/*.yaml
  test    -c configs/probe.yaml --ckpt_path CKPT
                                             evaluate a probe on held-out samples, beside its baselines
  test    -c configs/dynamism.yaml           dynamism: how the heads that score change from step to step
  test    -c configs/correlation.yaml        correlation: of hidden states with heads' scores 0 to 10 steps later
  fit, test -c configs/offset_probes.yaml    probes that predict the heads of 0 to 10 steps later
  test    -c configs/ablation/niah.yaml      ablation: ablate dynamic, static or random heads while the LLM answers;
          -c configs/ablation/hotpotqa.yaml  *_k.yaml beside them: only the first k dynamic heads
  test    -c configs/rag.yaml --ckpt_path CKPT
                                             masked dynamic RAG: a regressor chooses the heads, RIND when to retrieve;
                                             overlays: configs/rag/*.yaml
  test    -c configs/attribution.yaml        attribution: which sources of its context an answer rests on, by the heads
                                             that copy at each token, and by other methods
  test    -c configs/grounding.yaml          grounding: which scores separate grounded answers from others
  test    -c configs/diagnosis.yaml          diagnosis: why answers failed, by the heads at the token where they go
                                             wrong, tested by interventions

commands, each with its own --help:
  configs [DIR]                              list the shipped configs, or copy them into a folder
  report RUNS…                               write one HTML page of all results, with an explorer of heads over time
  merge STORES… --output STORE               join the score stores of several machines to one
  overlap A B                                compare two static rankings of heads: published files or score stores
  ranking STORE FILE                         write a store's static ranking of heads as .json, .yaml or .tsv
  attribute FILE --output DIR                answer a file's questions from their documents, each token with its source
  diagnose FILE                              write a page of failed answers, a card each, of questions or a diagnosis
  trace FILE                                 print runs of masked RAG step by step

useful keys:
  -c FILE                a further config is merged over the former: configs/llm/*.yaml choose a model;
                         a shipped config is found by its name where the working folder has no such file
  --store FOLDER         the score store to write or to read
  --llm.init_args.name   embedded:smollm2, a Hugging Face id, a folder, or a .gguf file
  --verify               hash every shard of the stores again; otherwise only those that changed since the last time
  --trainer.devices N    and every other option of Lightning's Trainer
  --print_config         what would run, every key with its value
  --safe                 configs are code: any class that they name is imported and called; with this switch only
                         known classes of this project, Lightning and torch, for configs from elsewhere

`lightning STAGE --help` lists every key. RETRIEVAL_HEADS_DEBUG=1 shows the traceback of an error.
"""
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
ENVIRONMENT = {
    # Threads that spin at each barrier stop one another where another process needs a core.
    "OMP_WAIT_POLICY": "PASSIVE",
    # In bfloat16 on a CPU, PyTorch and oneDNN keep 0.7 MB for every shape of a product, of 1,024 by default.
    "LRU_CACHE_CAPACITY": "128",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}
"""Defaults of environment variables that libraries read."""
COMMANDS = ("attribute", "configs", "diagnose", "merge", "overlap", "ranking", "report", "trace")


def main(args: Sequence[str] | None = None) -> int:
    """Run one stage or command; the exit code.

    Bad input prints one line to stderr and gives exit code 2, a bug its line and 70: see `probe.cli.errors`. SIGTERM
    and Ctrl-C stop it after its current batch, with exit code 143 or 130: see `probe.cli.stopping`.
    """
    for name, value in ENVIRONMENT.items():  # read when torch is loaded
        os.environ.setdefault(name, value)
    argv = [_as_unicode(arg) for arg in (sys.argv[1:] if args is None else args)]
    return stoppable(argv, lambda: _main(argv))


def _main(argv: list[str]) -> int:
    if not argv or argv in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    if "--safe" in argv:  # wherever it is, it holds for the whole run
        argv = [*(arg for arg in argv if arg != "--safe"), "--safe"]
    set_import_path(safe="--safe" in argv)
    _quieten()
    clean_logs(*LOGGERS)
    try:
        _dispatch(argv)
    except Exception as error:
        with reporting():
            if os.environ.get("RETRIEVAL_HEADS_DEBUG"):
                raise
            from probe.cli.errors import report_exception

            return report_exception(error)
    finally:
        _leave_processes()
    return 0


def _dispatch(argv: list[str]) -> None:
    """Import only what the command needs: `lightning configs` answers without loading Lightning."""
    if argv[0] in COMMANDS:
        from probe.cli.parser import run_command

        arguments = [arg for arg in argv[1:] if arg != "--safe"]
        with uncollected_imports():
            command = resolve_name(f"probe.cli.commands.{argv[0]}:{argv[0]}")
        run_command(command, arguments, safe="--safe" in argv)
        return
    from unittest.mock import patch

    with uncollected_imports():
        from probe.cli.lightning_cli import StageCLI

    # Lightning restarts a command for further processes from sys.argv, and score stores record it.
    with patch.object(sys, "argv", [sys.argv[0], *argv]):
        StageCLI.run_stage(safe="--safe" in argv)


@contextmanager
def uncollected_imports() -> Iterator[None]:
    """Import without Python's cyclic garbage collector, and keep what was imported out of its later passes.

    Its passes over a million objects that stay take a quarter of the time of a stage's start. Where torch is loaded
    already, or the collector is off, nothing is done.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _as_unicode(argument: str) -> str:
    """A command-line argument as UTF-8, also where the locale is another: Python keeps other bytes as surrogates."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def _leave_processes() -> None:
    """Close the connection to other processes: left to the interpreter's end, gloo's threads may abort it.

    Locks of folders that a failed run has not released go, too.
    """
    if locks := sys.modules.get("extract.utils.files.locks"):
        locks.release_locks()
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _quieten() -> None:
    """Silence warnings that a user can do nothing about; print what a locale lacks as escapes, not as an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # on each node where one logs in
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", message="Precision .*-mixed is not supported by the model summary.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(name in record.getMessage() for name in ("litlogger", "litmodels"))
    )


if __name__ == "__main__":
    sys.exit(main())
