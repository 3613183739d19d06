"""Synthetic two-hop questions about invented people and places: HotpotQA's counterpart that needs no download."""

import random
from typing import Any

from extract.errors import UserError
from extract.tasks.sources.base import Source
from extract.tasks.sources.records import LoadedRecords, Passage, Record, join_sentences
from extract.utils import NonNegativeInt, SampleCount, Seed

HEADS = """
Ash Birch Black Bright Cold Crow Deep Elm Fair Fern Fox Gold Grey Hart Hazel High Iron Lake Long Moss Oak Old Pine
Raven Red River Rock Rose Salt Silver Snow Stone Storm Swan Thorn White Wild Wind Winter Wolf
""".split()
TAILS = """
bank borough bridge brook bury cliff combe crest dale fell field ford gate grove ham haven hill holm hurst leigh march
mead mere moor mouth port ridge shaw shore stead thorpe ton vale ville water well wick wood worth
""".split()
FIRST = """
Adam Alice Anna Arthur Clara Daniel Edith Emma Frank George Grace Harold Helen Henry Ida Jack Jane John Laura Louis Lucy
Martha Martin Mary Max Nora Oscar Paul Peter Rosa Ruth Samuel Sarah Simon Thomas Walter
""".split()
TRADES = "painter baker carpenter sailor teacher tailor doctor singer weaver gardener miner clockmaker".split()
GOODS = "cheese carpets salt lamps honey boats bells apples wool pottery clocks flowers".split()
MOST_DECOYS = len(HEADS) * len(TAILS) // 3 - 1
"""Each person of a record takes three names."""
EVENTS = ("was born", "lives", "works", "went to school", "got married")


class SyntheticQA(Source):
    """Synthetic two-hop questions with exact supporting facts.

    Somebody did something in a town, the town is in a province, and the province is asked for. The two facts are in
    separate passages, among distractor passages of the same form about other people and towns. All names are invented
    for one record, so that only its context answers it.

    Args:
        count: Number of records.
        seed: With a record's number it determines the record.
        decoys: Distractors: other people in the context, each with a town and a province.

    """

    def __init__(self, count: SampleCount = 1000, seed: Seed = 0, decoys: NonNegativeInt = 1) -> None:
        self.count, self.seed, self.decoys = count, seed, decoys

    def load(self) -> LoadedRecords:
        """The records."""
        if self.count < 1 or self.decoys < 0:
            raise UserError(f"task source: count {self.count} and decoys {self.decoys} must be at least 1 and 0")
        if self.decoys > MOST_DECOYS:
            raise UserError(f"task source: decoys {self.decoys}, but there are names for {MOST_DECOYS} alone")
        return LoadedRecords([self._record(number) for number in range(self.count)])

    def describe(self) -> dict[str, Any]:
        """The settings."""
        return {"class": "SyntheticQA", "count": self.count, "seed": self.seed, "decoys": self.decoys}

    def _record(self, number: int) -> Record:
        # A string seeds through SHA-512, the same on every platform. Seed and id keep their first name, "fiction", so
        # that records stay those of earlier stores.
        rng = random.Random(f"fiction:{self.seed}:{number}")
        names = _names(rng, 3 * (1 + self.decoys))
        event = rng.choice(EVENTS)
        people = [f"{rng.choice(FIRST)} {next(names)}" for _ in range(1 + self.decoys)]
        passages, provinces = list[Passage](), list[str]()
        for chain, person in enumerate(people):
            town, province = next(names), next(names)
            provinces.append(province)
            facts = [0] if chain == 0 else []
            passages.append(_about_person(rng, person, f"{person} {event} in the town of {town}.", facts))
            passages.append(_about_town(rng, town, province, facts))
        rng.shuffle(passages)
        question = f"In which province is the town where {people[0]} {event}?"
        return Record(f"fiction-{self.seed}-{number}", question, provinces[0], tuple(passages), kind=event)


def _names(rng: random.Random, count: int) -> Any:
    """Distinct names made of two English words: easy to copy, and of no known place."""
    pairs = [head + tail for head in HEADS for tail in TAILS]
    return iter(rng.sample(pairs, count))


def _about_person(rng: random.Random, name: str, fact: str, facts: list[int]) -> Passage:
    """Passage of the fact and the person's trade, in random order."""
    return _with_filler(rng, name, fact, f"{name} is a {rng.choice(TRADES)}.", facts)


def _about_town(rng: random.Random, name: str, province: str, facts: list[int]) -> Passage:
    """Passage of the town's province and what it is known for, in random order."""
    fact = f"{name} is a town in the province of {province}."
    return _with_filler(rng, name, fact, f"{name} is known for its {rng.choice(GOODS)}.", facts)


def _with_filler(rng: random.Random, title: str, fact: str, filler: str, facts: list[int]) -> Passage:
    if rng.random() < 0.5:
        return join_sentences(title, [fact, filler], facts)
    return join_sentences(title, [filler, fact], [1 for _ in facts])
