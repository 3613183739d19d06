"""`lightning diagnose`: a page with a card for each failed answer, of questions or of a finished diagnosis."""

from typing import Literal

from extract.llm import LLM
from extract.utils import PositiveInt, say, user_path, write_bytes
from probe.diagnosis.experiment import Sorting, cards_page, diagnose_questions, holds_questions, read_run


def diagnose(
    file: str,
    output: str = "failed_answers.html",
    count: PositiveInt = 50,
    llm: LLM | None = None,
    thresholds: str = "chance",
    style: Literal["chain", "short"] = "short",
    budget: PositiveInt | None = None,
    batch_size: PositiveInt = 4,
    device: str = "auto",
) -> None:
    """Write one HTML page of failed answers, a card each, grouped by cause.

    A card has the token at which the answer goes wrong, both candidates, and the texts that wrote most for either. A
    line of a file of questions is {"id", "question", "answer", "context", "evidence"}, evidence as [start, end] of
    characters; results and finished batches go to a folder beside the page, and the same command again goes on there.

    Args:
        file: Questions as JSON Lines or a JSON list, or the results.json of a diagnosis, whose trials must be there.
        output: File to write.
        count: Most cards of a cause.
        llm: The frozen LLM, as in configs; by default the embedded one. This and what follows: of questions alone.
        thresholds: chance; own, from solved answers of a share of the questions; or results.json of a diagnosis.
        style: Whether the model answers in a chain of thought or with the answer alone.
        budget: Most tokens of an answer; by default the style's.
        batch_size: Questions answered together.
        device: Where the LLM runs: auto (a GPU if there is one), cpu, cuda, cuda:1.

    """
    source, target = user_path(file), user_path(output)
    if holds_questions(source):
        folder = target.parent / f"{target.stem}_run"
        sorting = Sorting.of(thresholds)
        source = diagnose_questions(file, folder, llm or LLM(), sorting, style, budget, batch_size, device)
    run = read_run(source)
    write_bytes(target, cards_page(run, count).encode())
    failed = sum(trial["failed"] for trial in run.trials)
    say(f"{failed} failed answers of {len(run.trials)}: {target}")
