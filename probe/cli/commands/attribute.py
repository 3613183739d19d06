"""`lightning attribute`: a file of questions, each answer traced to its sources."""

import sys

import torch

from extract.errors import UserError
from extract.llm import LLM
from extract.tasks.sources import existing_files
from extract.utils import NonNegativeInt, PositiveInt, Share, WorkShare, say, user_path
from probe.attribution import Unit, methods
from probe.attribution.citations import CITATIONS, GROUNDED_FROM, AnswerFile, Attributor
from probe.attribution.methods import AttributionMethod

for _name in dir(methods):  # jsonargparse finds a class by its bare name once it is imported
    getattr(methods, _name)


def attribute(
    file: str,
    output: str,
    llm: LLM | None = None,
    unit: Unit = "sentence",
    method: AttributionMethod | None = None,
    ablations: NonNegativeInt = 0,
    budget: PositiveInt = 100,
    grounded_from: Share = GROUNDED_FROM,
    share: str = "1/1",
    device: str = "auto",
) -> None:
    """Answer questions from their documents, and trace every token of the answers to its sources.

    A line of the file is {"question", "documents", "answer", "id"}: documents are texts or {"title", "text"}; an
    answer that is given is attributed as it is. The folder gets citations.jsonl and a page for each answer.

    Args:
        file: Questions as JSON Lines, or a JSON list of them.
        output: Folder to write; the same command again goes on where it ended.
        llm: The frozen LLM, as in configs; by default the embedded one.
        unit: What a source is: a sentence, a passage (whole document) or a token.
        method: Attribution method, a class of probe.attribution.methods; by default heads that copy at the token.
        ablations: Extra runs an answer with sources removed, for which the method's scores are the prior.
        budget: Most tokens of an answer.
        grounded_from: Share of the documents from which a token is grounded.
        share: This process of how many that share the file, such as 2/4.
        device: Where the LLM runs: auto (a GPU if there is one), cpu, cuda, cuda:1.

    """
    (path,), own = existing_files(file), WorkShare.parse(share, "--share")
    model = llm or LLM()
    attributor = Attributor(
        model, unit, method, ablations, budget=budget, grounded_from=grounded_from, device=_device(device)
    )
    outcome = AnswerFile(path, user_path(output), attributor, own).run()
    for line in outcome.rejected.summary():
        say(line, sys.stderr)
    done = f"answers attributed: {outcome.answered}; finished before: {outcome.kept}"
    say(f"{done}; {outcome.collected} in {output}/{CITATIONS}")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: auto, cpu, cuda or cuda:1") from error
