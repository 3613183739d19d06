"""The paper's tables and figures in the report: the view of each, and the command that makes its results."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probe.experiments.correlation import KINDS
from probe.report import Model, Models, Result, View, llm_of
from probe.report.exhibits import (
    ablation,
    attribution,
    correlation,
    diagnosis,
    dynamism,
    grounding,
    offset_probes,
    probes,
    rag,
)

Record = dict[str, Any]


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of the paper, or one that the paper lacks.

    Attributes:
        key: Its anchor in the page.
        paper: Its number in the paper; empty where the paper lacks it.
        title: The question that it answers.
        text: How to read it.
        command: What makes its results.
        experiment: Whose results it shows, by the name in results.json.
        view: Tables and plots of a record.
        selects: Which of the experiment's records it shows; by default all.
        own: Places of the first table's columns that are compared between models.
        published: Places of its columns of the paper.

    """

    key: str
    paper: str
    title: str
    text: str
    command: str
    experiment: str
    view: Callable[[Record], View]
    selects: Callable[[Record], bool] = lambda _: True
    own: tuple[int, ...] = (0,)
    published: tuple[int, ...] = ()

    def takes(self, record: Record) -> bool:
        """Whether it shows this record."""
        return record["experiment"] == self.experiment and self.selects(record)


def _ablation(target: str, sweep: bool) -> Callable[[Record], bool]:
    return lambda record: record["dynamic_heads"]["target"] == target and ablation.is_sweep(record) == sweep


def _target(target: str) -> Callable[[Record], bool]:
    return lambda record: bool(record["target"] == target)


EXHIBITS = (
    Exhibit(
        "dynamism",
        "Table 1, Figs. 1 and 5",
        "Do the heads change from step to step?",
        "A low Jaccard index: few dynamic heads of a step are in the static set, or dynamic at the step before. The "
        "shuffled baseline has the same activations of each head, without their order in time.",
        "lightning test -c configs/dynamism.yaml --store STORE",
        "dynamism",
        dynamism.view,
        own=(0, 1),
        published=(2, 3),
    ),
    Exhibit(
        "ablation",
        "Fig. 2",
        "Are they replaceable? Needle prompts",
        "The model answers with heads ablated at every step: its dynamic heads, a static set, random heads, or the "
        "difference of two sets.",
        "lightning test -c configs/ablation/niah.yaml --store STORE",
        "ablation",
        ablation.view,
        _ablation("copy_paste", sweep=False),
        own=(0, 1),
    ),
    Exhibit(
        "ablation-k",
        "Fig. 3",
        "How many heads does it take? Needle prompts",
        "Only the first k dynamic heads of each step are ablated.",
        "lightning test -c configs/ablation/niah_k.yaml --store STORE",
        "ablation",
        ablation.view,
        _ablation("copy_paste", sweep=True),
        own=(0, 1),
    ),
    Exhibit(
        "correlation",
        "Fig. 4",
        "Does the hidden state predict the heads? Needle prompts",
        "Canonical correlation of the final hidden state with the scores of all heads k steps later. A correlation "
        "within the range of the nulls is no evidence.",
        "lightning test -c configs/correlation.yaml --store STORE",
        "correlation",
        correlation.view,
        _target("copy_paste"),
        own=(KINDS.index("held_out"), KINDS.index("null_step")),
        published=(len(KINDS),),
    ),
    Exhibit(
        "classifier",
        "Table 2",
        "Can a probe predict which heads copy?",
        "Prediction of the dynamic heads of a step from its hidden state.",
        "lightning test -c configs/probe.yaml --store STORE --ckpt_path CKPT",
        "classifier",
        probes.view,
        own=(0, 1),
        published=(-2, -1),
    ),
    Exhibit(
        "regressor",
        "Table 3",
        "Can a probe predict the share of each head's attention on the facts?",
        "Questions with annotated supporting facts; the score is Eq. 2.",
        "lightning test -c configs/regressor.yaml --store STORE --ckpt_path CKPT",
        "regressor",
        probes.view,
        own=(0, 1),
        published=(-2, -1),
    ),
    Exhibit(
        "rag",
        "Table 4",
        "Do predicted heads retrieve better?",
        "Masked dynamic RAG: the context is hidden until a draft is uncertain; then the attention of a few heads "
        "selects what becomes visible.",
        "lightning test -c configs/rag.yaml --ckpt_path CKPT",
        "rag",
        rag.view,
        own=(0, 2),
        published=(1, 3),
    ),
    Exhibit(
        "ablation-qa",
        "Fig. 6",
        "Are they replaceable? Multi-hop questions",
        "As for needle prompts; a head is dynamic at a step if its reasoning score (Eq. 2) reaches the threshold.",
        "lightning test -c configs/ablation/hotpotqa.yaml --store STORE",
        "ablation",
        ablation.view,
        _ablation("reasoning", sweep=False),
        own=(0, 1),
    ),
    Exhibit(
        "ablation-qa-k",
        "Fig. 7",
        "How many heads does it take? Multi-hop questions",
        "Only the first k dynamic heads of each step are ablated.",
        "lightning test -c configs/ablation/hotpotqa_k.yaml --store STORE",
        "ablation",
        ablation.view,
        _ablation("reasoning", sweep=True),
        own=(0, 1),
    ),
    Exhibit(
        "correlation-qa",
        "Fig. 8",
        "Does the hidden state predict the heads? Multi-hop questions",
        "As for needle prompts, with reasoning scores (Eq. 2).",
        "lightning test -c configs/correlation.yaml --data.init_args.target reasoning --store STORE",
        "correlation",
        correlation.view,
        _target("reasoning"),
        own=(KINDS.index("held_out"), KINDS.index("null_step")),
        published=(len(KINDS),),
    ),
    Exhibit(
        "offset_probes",
        "",
        "Can probes predict the heads of later steps?",
        "Claim 3 beyond linear maps: one probe for each k, beside baselines without the hidden state; for all heads, "
        "and for those that wake up: dynamic k steps later and not now.",
        "lightning test -c configs/offset_probes.yaml --store STORE --ckpt_path CKPT",
        "offset_probes",
        offset_probes.view,
    ),
    Exhibit(
        "attribution",
        "",
        "Which sources does an answer rest on?",
        "The heads that copy at a token say where it comes from, without any further forward; beside them methods that "
        "compare words, or run the model again without sources.",
        "lightning test -c configs/attribution.yaml",
        "attribution",
        attribution.view,
    ),
    Exhibit(
        "grounding",
        "",
        "Does an answer come from its context?",
        "Questions are answered with their evidence, without it, and with a contradiction in its place, so that it is "
        "known which answers come from the context. An area of 0.5 is chance.",
        "lightning test -c configs/grounding.yaml",
        "grounding",
        grounding.view,
        own=(0, 1, 2),
    ),
    Exhibit(
        "diagnosis",
        "",
        "Why did answers fail?",
        "Failed answers sorted by cause, at the token where they go wrong, from what every head attends to and writes "
        "there; interventions on held-out failures test the causes.",
        "lightning test -c configs/diagnosis.yaml",
        "diagnosis",
        diagnosis.view,
    ),
)


@dataclass(frozen=True)
class Shown:
    """A result with its view."""

    result: Result
    view: View
    older: int
    """Number of earlier results of the same command, which are not shown."""
    model: Model


def shown(exhibit: Exhibit, results: list[Result], models: Models) -> list[Shown]:
    """The newest result of each command, by model: copy-paste scores first, then the newest first."""
    by_command: dict[tuple[Model, str], list[Result]] = {}
    for result in results:
        if exhibit.takes(result.record):
            command = str(result.record.get("command", result.path))
            by_command.setdefault((models.of(llm_of(result.record)), command), []).append(result)
    newest = [
        Shown(same[0], exhibit.view(same[0].record), len(same) - 1, model) for (model, _), same in by_command.items()
    ]
    return sorted(newest, key=lambda one: (one.model.number, one.result.record.get("target") == "reasoning"))
