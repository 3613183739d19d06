"""Commands beside Lightning's stages: they need neither a model nor a trainer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from datamodules import Split
from extract.errors import UserError
from extract.scores import Target
from probe.cli.lightning_cli import Parser
from probe.heads import Ranking, ranking_overlap, read_ranking, store_ranking, write_ranking
from probe.rag import read_traces, show


def _any_ranking(path: str, target: Target) -> Ranking:
    return store_ranking(path, target, Split()) if Path(path).is_dir() else read_ranking(path)


def ranking(
    store: str,
    file: str,
    target: Target = "copy_paste",
    split: Split = Split(),  # noqa: B008 (frozen)
    kv_heads: int | None = None,
    reduce: Literal["max", "mean"] = "max",
) -> None:
    """Write the static ranking of a score store: each head's mean score over the training rows.

    Args:
        store: The score store.
        file: Where it goes: .json (Wu et al.), .yaml (QRHead's list), .tsv (DuoAttention, by KV head).
        target: The score to rank by: copy_paste (Eq. 1) or reasoning (Eq. 2).
        split: Which rows are training rows.
        kv_heads: KV heads a layer, to rank these; by default each query head is ranked.
        reduce: How the query heads of a KV head become one score.

    """
    heads = store_ranking(store, target, split)
    if kv_heads is not None:
        heads = heads.by_kv_head(kv_heads, reduce)
    write_ranking(heads, file)
    print(f"written to {file}")


def overlap(
    first: str,
    second: str,
    n: int = 20,
    target: Target = "copy_paste",
    layers: int | None = None,
    heads: int | None = None,
) -> None:
    """Print how far two static rankings of heads agree, beside chance.

    Args:
        first: A ranking file (.json, .yaml, .tsv) or a score store.
        second: The other one.
        n: Size of the tops to compare.
        target: The score that stores are ranked by.
        layers: Layers of the LLM, where neither side shows all of them.
        heads: Query heads a layer, likewise.

    """
    figures = ranking_overlap(_any_ranking(first, target), _any_ranking(second, target), n, layers, heads)
    table = Table(title=f"{first} and {second}: {figures.heads} {figures.unit}")
    for header in ("", "here", "by chance", "p"):
        table.add_column(header, justify="right" if header else "left")
    low_p = f"{figures.p_shared:.2g}"
    table.add_row(f"shared in the top {n}", str(figures.shared), f"{figures.expected:.2f}", low_p)
    if figures.ranked:
        name = f"Spearman over {figures.ranked} that both rank"
        table.add_row(name, f"{figures.spearman:.3f}", "0", f"{figures.p_spearman:.2g}")
    Console().print(table)


def trace(file: str, sample: str | None = None, strategy: str | None = None, count: int = 1) -> None:
    """Print runs of masked RAG: drafts, RIND's values, heads, windows, rewrites.

    Args:
        file: The `traces.jsonl` of a run of configs/rag.yaml.
        sample: Id of the question; by default any.
        strategy: Name of the strategy; by default any.
        count: Runs to print, the first that fit.

    """
    console, shown = Console(), 0
    for one in read_traces(file):
        if shown < count and sample in (None, one["id"]) and strategy in (None, one["strategy"]):
            show(one, console)
            shown += 1
    if not shown:
        raise UserError(f"{file} holds no run of question {sample or 'any'} under strategy {strategy or 'any'}")


def report(runs: list[str], output: str = "report.html", samples: int = 8, questions: int = 12) -> None:
    """Write one HTML page of all results, with an explorer of heads over time; it needs no network.

    Args:
        runs: Folders of runs, score stores and checkpoints, or folders above them: `runs stores ckpts`.
        output: The file.
        samples: Samples of each store in the explorer, at most.
        questions: Questions of each RAG run with their traces, at most.

    """
    from probe.report import write_report

    file = write_report(runs, output, samples, questions)
    print(f"written to {file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser")


COMMANDS: dict[str, Callable[..., None]] = {
    "overlap": overlap,
    "ranking": ranking,
    "report": report,
    "trace": trace,
}


def run_command(argv: Sequence[str]) -> None:
    """Parse and run one of the commands.

    Raises:
        UserError: wrong arguments, or what the command itself refuses.

    """
    if argv[0] not in COMMANDS:
        raise UserError(f"there is no command {argv[0]}")
    command = COMMANDS[argv[0]]
    about = (command.__doc__ or "").splitlines()[0]
    prog = f"lightning {argv[0]}"
    if command is not report:
        auto_cli(command, args=list(argv[1:]), parser_class=Parser, prog=prog, description=about)
        return
    parser = Parser(prog=prog, description=about)  # auto_cli knows no positional that may stand there many times
    folders = "folders of runs, score stores and checkpoints, or above them"
    parser.add_argument("runs", nargs="+", type=str, metavar="RUNS", help=folders)
    parser.add_function_arguments(report, skip={"runs"})
    report(**parser.parse_args(list(argv[1:])).as_dict())
