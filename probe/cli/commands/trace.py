"""`lightning trace`: runs of masked RAG, step by step."""

from extract.errors import UserError
from extract.utils import DataConsole, PositiveInt
from probe.rag import print_trace, read_traces


def trace(file: str, sample: str | None = None, strategy: str | None = None, count: PositiveInt = 1) -> None:
    """Print runs of masked RAG step by step: drafts, RIND scores, chosen heads, visible windows, rewrites.

    Args:
        file: The `traces.jsonl` that a run of configs/rag.yaml wrote.
        sample: Id of the question; by default any.
        strategy: Name of the strategy; by default any.
        count: Number of runs to print: the first that match.

    """
    console, shown = DataConsole(), 0
    for one in read_traces(file):
        if shown < count and sample in (None, one["id"]) and strategy in (None, one["strategy"]):
            print_trace(one, console)
            shown += 1
    if not shown:
        raise UserError(f"{file} holds no run of question {sample or 'any'} under strategy {strategy or 'any'}")
