"""The command line: `lightning {predict,fit,validate,test} -c config.yaml`."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from unittest.mock import patch

HELP = """\
usage: lightning {predict,fit,validate,test} -c CONFIG [-c OVERLAY …] [--KEY VALUE …]

See, test and predict which attention heads of a language model copy from its context, token by token.

stages, each a config file:
  predict -c configs/extract/niah.yaml    run the frozen LLM on needle-in-a-haystack prompts, keep
                                          (hidden state, scores of all heads) of every generated token
  predict -c configs/extract/hotpotqa.yaml  the same on multi-hop questions with known supporting facts
  fit     -c configs/probe.yaml           train the paper's classifier on a store of needle prompts,
          -c configs/regressor.yaml       or its regressor on one of questions
  test    -c configs/probe.yaml --ckpt_path CKPT
                                          evaluate a probe on held-out samples, beside its baselines
  test    -c configs/dynamism.yaml        how the heads of a store change from step to step
  test    -c configs/correlation.yaml     how far the hidden state correlates with the heads of later steps
  fit, test -c configs/offset_probes.yaml  probes for the heads of 0 to 10 steps later
  test    -c configs/ablation/niah.yaml   ablate heads while the LLM answers: dynamic, static, random ones;
          -c configs/ablation/hotpotqa.yaml  *_k.yaml beside them: only the first k dynamic heads
  test    -c configs/rag.yaml --ckpt_path CKPT
                                          masked dynamic RAG: a regressor chooses heads, RIND the moment

commands, each with a --help of its own:
  report RUNS…                            one HTML page of all results, with an explorer of heads over time
  overlap A B                             how far two static rankings of heads agree: published files or stores
  ranking STORE FILE                      write a store's ranking of heads as .json, .yaml or .tsv
  trace FILE                              print runs of masked RAG step by step

useful keys:
  -c FILE                a further config is merged over the former: configs/llm/*.yaml choose a model
  --store FOLDER         the score store to write or to read
  --llm.init_args.name   embedded:smollm2, a Hugging Face id, a folder, or a .gguf file
  --trainer.devices N    and every other option of Lightning's Trainer
  --print_config         what would run, every key with its value

`lightning STAGE --help` lists every key. RETRIEVAL_HEADS_DEBUG=1 shows tracebacks of bad input too.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one stage. Bad input prints one line to stderr and gives exit code 2."""
    argv = list(sys.argv[1:] if args is None else args)
    if not argv or argv in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    # A user's own modules (tasks, probes) are found from where they work, as with `python -m`.
    if "" not in sys.path:
        sys.path.insert(0, "")
    _quieten()
    from probe.cli.commands import COMMANDS, run_command
    from probe.cli.lightning_cli import StageCLI

    try:
        if argv[0] in COMMANDS:
            run_command(argv)
            return 0
        # Lightning restarts a command for further processes from sys.argv, and stores record it.
        with patch.object(sys, "argv", [sys.argv[0], *argv]):
            StageCLI.run_stage()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        message = _one_line(error)
        if message is None or os.environ.get("RETRIEVAL_HEADS_DEBUG"):
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    finally:
        _leave_processes()
    return 0


def _leave_processes() -> None:
    """Close the connection to other processes: left to the interpreter's end, gloo's threads may abort it."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _quieten() -> None:
    """Ablate what a user can do nothing about."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(name in record.getMessage() for name in ("litlogger", "litmodels"))
    )


def _one_line(error: BaseException) -> str | None:
    """The message of the user's mistake behind an exception; None if it is a bug of ours."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from extract.errors import UserError

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    wanted: list[BaseException] = [link for link in chain if isinstance(link, UserError | MisconfigurationException)]
    if not wanted and isinstance(error, OSError):
        wanted = [error]  # a disk or permission problem; deeper in the chain it may be one that was dealt with
    return " ".join(str(wanted[0]).split()) if wanted else None


if __name__ == "__main__":
    sys.exit(main())
