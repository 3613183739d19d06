"""Areas under the ROC curve of grounding scores: by group of answers, for answers and for tokens; thresholds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.utils import Seed, ShareBelowOne, check_fields
from probe.attribution.citations.attributed_answer import GROUNDED_FROM
from probe.attribution.grounding.contexts import CONTEXTS
from probe.attribution.grounding.roc import ClusteredItems, recalls, youden_threshold
from probe.attribution.grounding.scores import BASELINES, SCORES
from probe.metrics import Bootstrap, Estimate, bootstrap, holm
from probe.results import Trial

LEVELS = ("answer", "token")
GROUPS: dict[str, Callable[[Trial], bool]] = {
    "all": lambda _: True,
    "removed": lambda trial: bool(trial["context"] != "contradiction"),
    "contradiction": lambda trial: bool(trial["context"] == "contradiction"),
    "stated elsewhere": lambda trial: bool(trial["grounded"] or trial["in_context"]),
    "not stated": lambda trial: bool(trial["grounded"] or not trial["in_context"]),
}
"""Labelled answers: all; those with evidence against those without it; those given a contradiction; and all grounded
ones against those not grounded whose text the context has (of a distractor), or has not (from the model alone)."""


@dataclass(frozen=True)
class TrainingShare:
    """Questions on which thresholds are chosen; all others evaluate.

    Attributes:
        share: Share of the questions.
        seed: Of their choice.

    """

    share: ShareBelowOne = 0.3
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def chosen(self, questions: Sequence[int]) -> set[int]:
        """Some of the questions, whatever their order.

        >>> sorted(TrainingShare(0.5).chosen([4, 1, 7, 9]))
        [1, 7]

        """
        ordered = sorted(questions)
        order = np.random.default_rng(self.seed).permutation(len(ordered))
        return {ordered[place] for place in order[: round(self.share * len(ordered))]}


class GroundingOutcomes:
    """Labelled answers of all trials, and their tokens, divided into training and held-out questions.

    Args:
        trials: Three of each question.
        training: Which questions choose the thresholds.

    """

    def __init__(self, trials: Sequence[Trial], training: TrainingShare) -> None:
        self.trials = sorted(trials, key=lambda trial: (trial["sample"], CONTEXTS.index(trial["context"])))
        self.training = training.chosen(list({trial["sample"] for trial in trials}))

    def items(self, level: str, group: str = "all", training: bool = False) -> ClusteredItems:
        """The labelled answers, or tokens, of a group."""
        trials = [
            trial
            for trial in self.trials
            if trial["grounded"] is not None and (trial["sample"] in self.training) == training and GROUPS[group](trial)
        ]
        counts = np.array([trial["tokens"] if level == "token" else 1 for trial in trials], np.int64)
        return ClusteredItems(
            {name: _values(trials, level, name) for name in (*SCORES, *BASELINES)},
            np.repeat(np.array([trial["grounded"] for trial in trials], np.bool_), counts),
            np.repeat(np.array([trial["sample"] for trial in trials], np.int64), counts),
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Answers of each context by label, training questions included."""
        labels = {"grounded": True, "not grounded": False, "no label": None}
        return {
            context: {
                name: sum(trial["context"] == context and trial["grounded"] is value for trial in self.trials)
                for name, value in labels.items()
            }
            for context in CONTEXTS
        }

    def measured(self, settings: Bootstrap) -> dict[str, Any]:
        """Counts, areas, differences from the baselines and thresholds, in plain values."""
        groups = {(group, level): self.items(level, group) for group in GROUPS for level in LEVELS}
        return {
            "questions": len({trial["sample"] for trial in self.trials}),
            "training_questions": len(self.training),
            "answers": self.counts(),
            "classes": _nested({key: items.counts() for key, items in groups.items()}),
            "auroc": _nested({key: items.areas(settings) for key, items in groups.items()}),
            "pairs": _nested({key: list(_pairs(items, settings)) for key, items in groups.items()}),
            "thresholds": {name: self._threshold(name, settings) for name in (*SCORES, *BASELINES)},
            "default_threshold": self._at(next(iter(SCORES)), GROUNDED_FROM, settings),
        }

    def _threshold(self, name: str, settings: Bootstrap) -> dict[str, Any]:
        """Threshold of a token's score by the training questions, and what it does on the others."""
        training = self.items("token", training=True)
        return self._at(name, youden_threshold(training.scores[name], training.labels), settings)

    def _at(self, name: str, threshold: float, settings: Bootstrap) -> dict[str, Any]:
        """Recall of grounded and of other held-out tokens at a threshold, with intervals over questions."""
        items = self.items("token")
        scores, (questions, index) = items.scores[name], np.unique(items.question, return_inverse=True)
        names = ("recall_grounded", "recall_others")

        def weighted(weights: NDArray[np.float64]) -> dict[str, float]:
            counted = np.repeat(np.arange(len(scores)), weights[index].astype(np.int64))
            return dict(zip(names, recalls(scores[counted], items.labels[counted], threshold), strict=True))

        values = dict(zip(names, recalls(scores, items.labels, threshold), strict=True))
        if np.isnan(threshold):
            return {"threshold": threshold, **dict.fromkeys(names)}
        bounds = bootstrap(weighted, len(questions), settings.resamples, settings.seed)
        cells = {key: Estimate(values[key], *bounds[key], len(questions)).as_dict() for key in names}
        return {"threshold": threshold, **cells}


def _values(trials: Sequence[Trial], level: str, name: str) -> NDArray[np.float64]:
    if level == "answer":
        return np.array([trial["scores"][name] for trial in trials], np.float64)
    return np.array([value for trial in trials for value in trial["token_scores"][name]], np.float64)


def _pairs(items: ClusteredItems, settings: Bootstrap) -> Iterator[dict[str, Any]]:
    """Each score against each baseline; the comparisons of a score are one family of Holm's correction."""
    for score in SCORES:
        pairs = items.differences(settings, score, list(BASELINES))
        tested = [pair for pair in pairs if not np.isnan(pair["p"])]
        corrected = dict(zip([pair["second"] for pair in tested], holm([pair["p"] for pair in tested]), strict=True))
        for pair in pairs:
            p = pair["p"] if pair["second"] in corrected else None
            yield {**pair, "p": p, "p_holm": corrected.get(pair["second"])}


def _nested(found: dict[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    """Values of groups and levels, group first."""
    return {group: {level: found[group, level] for level in LEVELS} for group in GROUPS}
