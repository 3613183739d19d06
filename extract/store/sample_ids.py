"""Identification of samples across stores: by their content, whatever store, haystack or file they are in."""

import hashlib
import json
import random
import re
import uuid
from collections.abc import Collection, Iterable

SCHEME = "content-1:"
"""Beginning of an id that names the content; the number changes with the way it is computed."""
FORMER_NEEDLE = re.compile(r"NIAH:(-?\d+):[0-9a-f]{12}:(\d+)")
"""Id of a needle sample in early stores: seed, haystack, number."""


def content_id(*content: str) -> str:
    """Id of a sample by what its answer is learned from: the needle's key, or question and gold answer.

    Samples of equal content have equal ids in every store, so a probe trained on one is not evaluated on the other.

    >>> content_id("In which province is Oakbury?", "Rosefell")
    'content-1:c52fa97b3c494204'

    """
    return SCHEME + hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]


def sample_names(name: str, question: str | None = None, gold: str | None = None) -> frozenset[str]:
    """All names by which a sample may be known to a store or a probe.

    An id of the content is the only one. With an id of another scheme, of an early store or of a task of your own, the
    content's is computed: from seed and number of an early needle, else from question and gold answer.

    Args:
        name: The id.
        question: Of the sample, where it is known.
        gold: Its gold answer, likewise.

    >>> len(sample_names("NIAH:0:2fc469e5b6d9:17")), len(sample_names("5a8b57f25542995d1e6f1371", "Who?", "Ada"))
    (2, 2)

    """
    if name.startswith(SCHEME):
        return frozenset({name})
    if former := FORMER_NEEDLE.fullmatch(name):
        rng = random.Random(f"{former[1]}:{former[2]}")
        return frozenset({name, content_id(str(uuid.UUID(int=rng.getrandbits(128), version=4)))})
    return frozenset({name} if question is None or gold is None else {name, content_id(question, gold)})


def shared_names(samples: Iterable[Collection[str]], known: Collection[str]) -> list[str]:
    """A name of each sample that is among the known ones, in order of the names.

    Args:
        samples: Names of each sample.
        known: Names of other samples.

    >>> shared_names([{"a", "b"}, {"c"}, {"b"}], {"b", "d"})
    ['b', 'b']

    """
    common = [set(known).intersection(names) for names in samples]
    return sorted(min(names) for names in common if names)
