"""Static rankings of heads, read and written in the formats that people publish."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from extract.errors import UserError
from extract.utils import parse_yaml, read_text, remove_temporary_files, user_path, write_bytes
from probe.heads.ranking import Ranking
from probe.heads.ranking_json import Head, finite_numbers, parse_head, parse_scores, rank_scores

MOST_BYTES = 2**26
"""Size of a ranking file."""
MAX_HEADS = 10**6
"""More heads than any LLM has: a file that names a later one is wrong."""


def read_ranking(file: str | Path) -> Ranking:
    """Read a published ranking; the file's suffix tells its format.

    `.json`: `{"layer-head": [score of each detection, …], …}` (Wu et al.), scored by the mean; `scores` beside `meta`
    (LOCOS); `[["layer-head", score], …]` (QRHead's detection); names of heads, best first (`important_heads`).
    `.yaml`: `attn_head_set: "layer-head,…"`, best first (QRHead), scored from 1 for the best down to 1/n.
    `.tsv`: a line for each layer, a number for each KV head (DuoAttention).

    Raises:
        UserError: no such file, or not of that format.

    """
    path = user_path(file)
    if path.suffix not in _READERS:
        raise UserError(f"{path} is no ranking of heads: a .json, .yaml or .tsv file is expected")
    if not path.is_file():
        raise UserError(f"there is no ranking file {path}")
    return _READERS[path.suffix](read_text(path, MOST_BYTES), str(path))


def _read_json(text: str, source: str) -> Ranking:
    """Wu et al., LOCOS, QRHead's detection, lists of names."""
    return _ranking(*parse_scores(text, source), source)


def _read_yaml(text: str, source: str) -> Ranking:
    """QRHead: a list of heads, best first."""
    record = parse_yaml(text, source)
    listed = record.get("attn_head_set") if isinstance(record, dict) else None
    if not isinstance(listed, str) or not listed.strip():
        raise UserError(f'{source}: attn_head_set: "layer-head,layer-head,…" is expected, best first')
    names = listed.split(",")
    return _ranking([parse_head(name, source) for name in names], rank_scores(len(names)), source)


def _read_tsv(text: str, source: str) -> Ranking:
    """DuoAttention: the whole grid of layers × KV heads."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or len({len(line) for line in lines}) != 1:
        raise UserError(f"{source}: lines of equally many numbers are expected, a line for each layer")
    try:
        grid = np.array(lines, dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    finite_numbers(grid.ravel().tolist(), source)
    return Ranking(grid, True, source, grouped=True)


_READERS: dict[str, Callable[[str, str], Ranking]] = {
    ".json": _read_json,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".tsv": _read_tsv,
}


def _ranking(heads: list[Head], scores: list[float], source: str) -> Ranking:
    """A ranking of the listed heads, in the smallest grid that holds them; one without a gap is that of the LLM."""
    if not heads:
        raise UserError(f"{source} names no head")
    (layer, head), times = Counter(heads).most_common(1)[0]
    if times > 1:
        raise UserError(f"{source} names head {layer}-{head} twice")
    shape = tuple(max(column) + 1 for column in zip(*heads, strict=True))
    if shape[0] * shape[1] > MAX_HEADS:
        raise UserError(f"{source} names head {shape[0] - 1}-{shape[1] - 1}: no LLM has that many")
    grid = np.full(shape, np.nan)
    grid[tuple(zip(*heads, strict=True))] = scores
    whole = shape[0] > 1 and not np.isnan(grid).any()  # a list of a few heads may fill the part of one layer
    return Ranking(grid, whole, source)


def write_ranking(ranking: Ranking, file: str | Path) -> None:
    """Write a ranking; the suffix tells the format, as for `read_ranking`. A TSV holds the grid as it is.

    Raises:
        UserError: another suffix, a TSV of a ranking that leaves heads out, or a file there that is no ranking.

    """
    path = user_path(file)
    if path.suffix not in _WRITERS:
        raise UserError(f"{path}: a ranking is written as .json, .yaml or .tsv")
    text = _WRITERS[path.suffix](ranking, str(path))
    _refuse_other_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(path.parent)
    write_bytes(path, text.encode(), follow=True)


def _refuse_other_file(path: Path) -> None:
    """Refuse to replace what is no ranking of its format."""
    if path.is_file() and path.stat().st_size:
        try:
            read_ranking(path)
        except UserError as error:
            raise UserError(f"{path} exists and is no ranking; choose another file") from error


def _ranked(ranking: Ranking) -> dict[str, float]:
    """Score of each ranked head by its name."""
    scores = ranking.scores.ravel()
    return {ranking.grid.name(head): float(scores[head]) for head in np.flatnonzero(~np.isnan(scores)).tolist()}


def _write_json(ranking: Ranking, target: str) -> str:
    del target
    return json.dumps({name: [score] for name, score in _ranked(ranking).items()}, indent=1) + "\n"


def _write_yaml(ranking: Ranking, target: str) -> str:
    del target
    scores = _ranked(ranking)
    return yaml.safe_dump({"attn_head_set": ",".join(sorted(scores, key=lambda name: -scores[name]))}, width=10**6)


def _write_tsv(ranking: Ranking, target: str) -> str:
    if (ranked := len(_ranked(ranking))) < ranking.scores.size:
        raise UserError(f"{target}: a .tsv holds every head, but {ranking.source} ranks {ranked} only")
    return "".join("\t".join(map(repr, row)) + "\n" for row in ranking.scores.tolist())


_WRITERS: dict[str, Callable[[Ranking, str], str]] = {
    ".json": _write_json,
    ".yaml": _write_yaml,
    ".yml": _write_yaml,
    ".tsv": _write_tsv,
}
