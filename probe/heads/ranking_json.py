"""Heads and their scores in the JSON files of other projects."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from extract.errors import UserError
from extract.utils import parse_json

Head = tuple[int, int]
"""Layer and index of a head."""

_NAME = re.compile(r"\s*(?:(\d{1,5})-(\d{1,5})|[LlAa](\d{1,5})[._-]?[Hh](\d{1,5}))\s*")
_EXPECTED = (
    '{"layer-head": [score, …], …} is expected, at least one score for each head; or pairs [["layer-head", score], …]; '
    'or heads alone, the best first: ["layer-head", …] or [[layer, head], …]'
)


def parse_head(name: Any, source: str) -> Head:
    """Layer and index of a named head; both count from 0.

    Args:
        name: `13-18` (Wu et al., QRHead), `L13H18`, `L13.H18` or `L13_H18`, `a13.h18` (EAP's nodes), or `[13, 18]`.
        source: Where the name is, for messages.

    Raises:
        UserError: it is none of these.

    >>> [parse_head(name, "example") for name in ("13-18", "L13H18", "L13.H18", "a13.h18", [13, 18])]
    [(13, 18), (13, 18), (13, 18), (13, 18), (13, 18)]

    """
    if isinstance(name, list) and [type(part) for part in name] == [int, int] and min(name) >= 0:
        return name[0], name[1]
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if not match:
        raise UserError(f"{source}: {str(name)[:40]!r} is not a head; layer-head is expected, for instance 13-18")
    layer, head = (int(digits) for digits in match.groups() if digits)
    return layer, head


def finite_numbers(values: Iterable[Any], where: str) -> list[float]:
    """The values as floats.

    Raises:
        UserError: one is no finite number.

    """
    numbers = list(values)
    try:
        found = [
            float(number) for number in numbers if isinstance(number, int | float) and not isinstance(number, bool)
        ]
    except OverflowError:  # an integer of hundreds of digits
        found = []
    if len(found) < len(numbers) or not np.isfinite(found).all():
        raise UserError(f"{where}: finite numbers are expected")
    return found


def rank_scores(count: int) -> list[float]:
    """Scores of a list of heads without scores, from 1 for the best down to 1/n.

    >>> rank_scores(4)
    [1.0, 0.75, 0.5, 0.25]

    """
    return [1 - place / count for place in range(count)]


def parse_scores(text: str, source: str) -> tuple[list[Head], list[float]]:
    """Heads and their scores.

    `{"layer-head": [score of each detection, …], …}` (Wu et al.), scored by the mean, or one number for each head; the
    same as `scores` beside `meta` (LOCOS); pairs `[["layer-head", score], …]` (QRHead's detection); or names alone, the
    best first. The last two may be the value of `important_heads`, itself in `params` or not (Attention Tracker).

    Args:
        text: The file's text.
        source: Its name, for messages.

    Raises:
        UserError: it is not JSON, of another form, or has a key twice.

    >>> parse_scores('{"meta": {"model": "m"}, "scores": {"0-1": [0.5, 0.7], "1-2": 0.3}}', "example")
    ([(0, 1), (1, 2)], [0.6, 0.3])
    >>> parse_scores('{"important_heads": ["L13H18", "2-1"]}', "example")
    ([(13, 18), (2, 1)], [1.0, 0.5])

    """
    try:
        record = _content(parse_json(text, source, pairs=_unique))
    except _KeyTwice as error:
        raise UserError(f"{source} names {error} twice") from error
    if isinstance(record, dict):
        return [parse_head(name, source) for name in record], [_mean(record[name], name, source) for name in record]
    if not isinstance(record, list) or not record:
        raise UserError(f"{source}: {_EXPECTED}")
    if all(isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) for entry in record):
        scores = [finite_numbers([score], f"{source}, {name}")[0] for name, score in record]
        return [parse_head(name, source) for name, _ in record], scores
    return [parse_head(name, source) for name in record], rank_scores(len(record))


class _KeyTwice(Exception):
    """A key that is in a JSON object twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python's own reader takes the last of two values without a word."""
    key, times = Counter(key for key, _ in pairs).most_common(1)[0] if pairs else ("", 0)
    if times > 1:
        raise _KeyTwice(f"head {key}" if _NAME.fullmatch(key) else key)
    return dict(pairs)


def _content(record: Any) -> Any:
    """What a file says about heads, without what is beside it."""
    for key in ("params", "important_heads", "scores"):
        if isinstance(record, dict) and isinstance(record.get(key), dict | list):
            record = record[key]
    return record


def _mean(scores: Any, name: str, source: str) -> float:
    if scores == [] or not isinstance(scores, list | int | float):
        raise UserError(f"{source}: {_EXPECTED}")
    return float(np.mean(finite_numbers(scores if isinstance(scores, list) else [scores], f"{source}, {name}")))
