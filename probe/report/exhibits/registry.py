"""The paper's tables and figures: what shows each, and the command that makes it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from probe.report import Result, View
from probe.report.exhibits import ablation as ablations
from probe.report.exhibits import correlation as correlations
from probe.report.exhibits import dynamism as turnover
from probe.report.exhibits import probes, rag

Record = dict[str, Any]


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of the paper.

    Attributes:
        key: Its anchor in the page.
        paper: What it is called there; ours alone where that is empty.
        title: What it asks.
        text: What to look for.
        command: What makes its results.
        takes: Whether a file of results belongs to it.
        view: What it shows of one.

    """

    key: str
    paper: str
    title: str
    text: str
    command: str
    takes: Callable[[Record], bool]
    view: Callable[[Record], View]


def _ablation(target: str, sweep: bool) -> Callable[[Record], bool]:
    return partial(ablations.takes, target=target, sweep=sweep)


def _by_target(takes: Callable[[Record], bool], target: str) -> Callable[[Record], bool]:
    return lambda record: takes(record) and record["target"] == target


EXHIBITS = (
    Exhibit(
        "turnover",
        "Table 1, Figs. 1 and 5",
        "Do the heads change from step to step?",
        "A low Jaccard index says that few heads of a step are those of the fixed set, or of the step before. The "
        "shuffled column is what the same frequencies give without any order in time.",
        "lightning test -c configs/dynamism.yaml --store STORE",
        turnover.takes,
        turnover.view,
    ),
    Exhibit(
        "ablation",
        "Fig. 2",
        "Are they replaceable? Needle prompts",
        "The model answers with some heads ablated at every step: those that score at this very step, a fixed set, "
        "random ones, or the difference of two.",
        "lightning test -c configs/ablation/niah.yaml --store STORE",
        _ablation("copy_paste", sweep=False),
        ablations.view,
    ),
    Exhibit(
        "ablation-k",
        "Fig. 3",
        "How many heads does it take? Needle prompts",
        "Only the first k heads of the moment are ablated.",
        "lightning test -c configs/ablation/niah_k.yaml --store STORE",
        _ablation("copy_paste", sweep=True),
        ablations.view,
    ),
    Exhibit(
        "correlation",
        "Fig. 4",
        "Does the hidden state predict the heads? Needle prompts",
        "Canonical correlation of the final hidden state with the scores of all heads k steps later. What the nulls "
        "reach is no evidence.",
        "lightning test -c configs/correlation.yaml --store STORE",
        _by_target(correlations.takes, "copy_paste"),
        correlations.view,
    ),
    Exhibit(
        "classifier",
        "Table 2",
        "Can a probe tell which heads copy?",
        "From the hidden state of a step: which heads score at it.",
        "lightning test -c configs/probe.yaml --store STORE --ckpt_path CKPT",
        probes.takes_classifier,
        probes.view,
    ),
    Exhibit(
        "regressor",
        "Table 3",
        "Can a probe tell how much of each head's attention goes to the facts?",
        "Questions with known supporting facts; the score is Eq. 2.",
        "lightning test -c configs/regressor.yaml --store STORE --ckpt_path CKPT",
        probes.takes_regressor,
        probes.view,
    ),
    Exhibit(
        "rag",
        "Table 4",
        "Do predicted heads retrieve better?",
        "Masked dynamic RAG: the context is hidden until a draft becomes uncertain; heads then choose what to show.",
        "lightning test -c configs/rag.yaml --ckpt_path CKPT",
        rag.takes,
        rag.view,
    ),
    Exhibit(
        "ablation-qa",
        "Fig. 6",
        "Are they replaceable? Multi-hop questions",
        "As for needle prompts; a head is dynamic at a step if Eq. 2 reaches the threshold.",
        "lightning test -c configs/ablation/hotpotqa.yaml --store STORE",
        _ablation("reasoning", sweep=False),
        ablations.view,
    ),
    Exhibit(
        "ablation-qa-k",
        "Fig. 7",
        "How many heads does it take? Multi-hop questions",
        "Only the first k heads of the moment are ablated.",
        "lightning test -c configs/ablation/hotpotqa_k.yaml --store STORE",
        _ablation("reasoning", sweep=True),
        ablations.view,
    ),
    Exhibit(
        "correlation-qa",
        "Fig. 8",
        "Does the hidden state predict the heads? Multi-hop questions",
        "As for needle prompts, with the scores of Eq. 2.",
        "lightning test -c configs/correlation.yaml --data.init_args.target reasoning --store STORE",
        _by_target(correlations.takes, "reasoning"),
        correlations.view,
    ),
    Exhibit(
        "offsets",
        "",
        "Can a probe tell the heads of later steps?",
        "Claim 3 without its linearity: a probe for each k, beside two baselines.",
        "lightning test -c configs/offsets.yaml --store STORE --ckpt_path CKPT",
        correlations.takes_probes,
        correlations.view_probes,
    ),
)


@dataclass(frozen=True)
class Shown:
    """A result as an exhibit shows it."""

    result: Result
    view: View
    older: int
    """Earlier results of the same command, which are not shown."""


def shown(exhibit: Exhibit, results: list[Result]) -> list[Shown]:
    """The newest result of each command: those of Eq. 1 first, then the newest first."""
    kept: dict[str, list[Result]] = {}
    for result in results:
        if exhibit.takes(result.record):
            kept.setdefault(str(result.record.get("command", result.path)), []).append(result)
    newest = sorted(kept.values(), key=lambda same: same[0].record.get("target") == "reasoning")
    return [Shown(same[0], exhibit.view(same[0].record), len(same) - 1) for same in newest]
