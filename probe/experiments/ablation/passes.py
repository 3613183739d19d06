"""Two passes over the prompts: `dynamic` first, then the conditions that are matched to its number of heads."""

from collections.abc import Sequence
from typing import Any

from extract.errors import UserError
from probe.experiments.ablation.conditions import AblateDynamic, Condition, NoAblation, Preparation
from probe.experiments.ablation.settings import NumberRule
from probe.heads import HeadCounts, StoreHeads
from probe.results import Trial

DYNAMIC = AblateDynamic().name


class Passes:
    """Which conditions run in the first pass, and which in the second.

    By the rule `ablated` conditions without a given number are matched to the average number of heads that
    `dynamic` ablates on the same prompts: that one is in the first pass, whether it is listed or not, and they are in
    the second. By the other rules the store gives the number, and there is one pass.

    Args:
        listed: Conditions of the config; generation without ablation is added in front.
        rule: Where the average number of heads comes from.
        store: Static ranking and numbers of dynamic heads of the training samples.

    Attributes:
        first, second: Conditions that are run; several for one of several random sets. The second are None until they
            are matched, and none where each is the same as one of the first.

    """

    def __init__(self, listed: Sequence[Condition], rule: NumberRule, store: StoreHeads) -> None:
        self.rule, self.store = rule, store
        conditions = [NoAblation(), *(one for one in listed if not isinstance(one, NoAblation))]
        waits = [one.matched and rule == "ablated" for one in conditions]
        if any(waits) and DYNAMIC not in [one.name for one in conditions]:
            conditions.insert(1, AblateDynamic())
            waits.insert(1, False)
        self._conditions = conditions
        self._members: dict[str, list[str]] = {}
        counts = store.counts
        self.counts, self.average = counts, counts.average(count_empty=rule != "training_non_empty")
        self.first = self._prepare([one for one, wait in zip(conditions, waits, strict=True) if not wait])
        self._waiting = [one for one, wait in zip(conditions, waits, strict=True) if wait]
        self.second: list[Condition] | None = None
        names = [one.name for one in conditions]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"model.conditions: '{min(twice)}' is listed twice")

    @property
    def matches(self) -> bool:
        """Whether there is a second pass."""
        return bool(self._waiting)

    def match(self, trials: Sequence[Trial]) -> None:
        """Prepare the second pass from all trials of the first."""
        steps = [trial["ablated_by_step"] for trial in trials if trial["condition"] == DYNAMIC]
        self.counts = HeadCounts.of_steps(steps)
        self.average = self.counts.average()
        done = {one.name for one in self.first}
        self.second = [one for one in self._prepare(self._waiting) if one.name not in done]

    def _prepare(self, conditions: Sequence[Condition]) -> list[Condition]:
        """The conditions to run, each once."""
        preparation = Preparation(self.store.ranking, self.counts, self.average)
        for one in conditions:
            one.prepare(preparation)
        found = {}
        for one in conditions:
            members = one.members()
            for member in members:
                member.prepare(preparation)
            self._members[one.name] = [member.name for member in members]
            found.update({member.name: member for member in members})
        return list(found.values())

    def members(self) -> dict[str, list[str]]:
        """Names of the conditions that were run for each condition of the config, once both passes are prepared."""
        return {one.name: self._members[one.name] for one in self._conditions}

    def describe(self) -> dict[str, Any]:
        """Every condition, and the number of heads, for results.json."""
        return {
            "conditions": {one.name: one.describe() for one in self._conditions},
            "matched_heads": {"rule": self.rule, "average": self.average, "steps_by_heads": list(self.counts.weights)},
        }
