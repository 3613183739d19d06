"""The command line: `lightning {predict,fit,validate,test} -c config.yaml`."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pkgutil import resolve_name

from probe.cli.stopping import reporting, stoppable

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

commands, each with its own --help:
  configs [DIR]                              list the shipped configs, or copy them into a folder
  report RUNS…                               write one HTML page of all results, with an explorer of heads over time
  overlap A B                                compare two static rankings of heads: published files or score stores
  ranking STORE FILE                         write a store's static ranking of heads as .json, .yaml or .tsv
  trace FILE                                 print runs of masked RAG step by step

useful keys:
  -c FILE                a further config is merged over the former: configs/llm/*.yaml choose a model;
                         a shipped config is found by its name where the working folder has no such file
  --store FOLDER         the score store to write or to read
  --llm.init_args.name   embedded:smollm2, a Hugging Face id, a folder, or a .gguf file
  --verify               hash every shard of the stores again; otherwise only those that changed since the last time
  --trainer.devices N    and every other option of Lightning's Trainer
  --print_config         what would run, every key with its value

`lightning STAGE --help` lists every key. RETRIEVAL_HEADS_DEBUG=1 shows the traceback of an error.
"""
COMMANDS = ("configs", "overlap", "ranking", "report", "trace")


def main(args: Sequence[str] | None = None) -> int:
    """Run one stage or command; the exit code. Bad input prints one line to stderr and gives exit code 2.

    SIGTERM and Ctrl-C stop it after its current batch, with exit code 143 or 130: see `probe.cli.stopping`.
    """
    argv = list(sys.argv[1:] if args is None else args)
    return stoppable(argv, lambda: _main(argv))


def _main(argv: list[str]) -> int:
    if not argv or argv in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    # A user's own modules (tasks, probes) are found from where they work, as with `python -m`.
    if "" not in sys.path:
        sys.path.insert(0, "")
    _quieten()
    try:
        _dispatch(argv)
    except Exception as error:
        with reporting():
            message = _one_line(error)
            if message is None or os.environ.get("RETRIEVAL_HEADS_DEBUG"):
                raise
            print(f"error: {message}", file=sys.stderr)
            return 2
    finally:
        _leave_processes()
    return 0


def _dispatch(argv: list[str]) -> None:
    """Import only what the command needs: `lightning configs` answers without loading Lightning."""
    if argv[0] in COMMANDS:
        from probe.cli.parser import run_command

        run_command(resolve_name(f"probe.cli.commands.{argv[0]}:{argv[0]}"), argv[1:])
        return
    from unittest.mock import patch

    from probe.cli.lightning_cli import StageCLI

    # Lightning restarts a command for further processes from sys.argv, and score stores record it.
    with patch.object(sys, "argv", [sys.argv[0], *argv]):
        StageCLI.run_stage()


def _leave_processes() -> None:
    """Close the connection to other processes: left to the interpreter's end, gloo's threads may abort it.

    Locks of folders that a failed run has not released go, too.
    """
    if locks := sys.modules.get("extract.utils.locks"):
        locks.release_locks()
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _quieten() -> None:
    """Silence warnings that a user can do nothing about."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", message="Precision .*-mixed is not supported by the model summary.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(name in record.getMessage() for name in ("litlogger", "litmodels"))
    )


def _one_line(error: BaseException) -> str | None:
    """The message of the user's mistake that caused an exception; None if it is a bug of ours."""
    causes = [link for link in _chain(error) if isinstance(link, _user_errors())]
    if not causes and isinstance(error, OSError):
        causes = [error]  # a disk or permission problem; deeper in the chain it may be one that was dealt with
    return " ".join(str(causes[0]).split()) if causes else None


def _chain(error: BaseException) -> list[BaseException]:
    """An exception, its cause, that one's cause, and so on."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return chain


def _user_errors() -> tuple[type[BaseException], ...]:
    """Exceptions whose message is meant for a user; Lightning's only where Lightning has been loaded."""
    from extract.errors import UserError

    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (UserError, lightning.MisconfigurationException) if lightning else (UserError,)


if __name__ == "__main__":
    sys.exit(main())
