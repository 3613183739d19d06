"""Static rankings of heads, read and written in the formats that people publish."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from extract.errors import UserError
from extract.utils import write_bytes
from probe.heads.ranking import Ranking

_HEAD = re.compile(r"\s*(\d{1,5})-(\d{1,5})\s*")


def read_ranking(file: str | Path) -> Ranking:
    """Read a published ranking; the file's suffix tells its format.

    `.json`: `{"layer-head": [score of each detection, …], …}` (Wu et al.), scored by the mean.
    `.yaml`: `attn_head_set: "layer-head,…"`, best first (QRHead), scored 1 for the best down to 1/n.
    `.tsv`: a line for each layer, a number for each KV head (DuoAttention).

    Raises:
        UserError: no such file, or not of that format.

    """
    path = Path(file)
    if path.suffix not in _READERS:
        raise UserError(f"{path} is no ranking of heads: a .json, .yaml or .tsv file is expected")
    if not path.is_file():
        raise UserError(f"there is no ranking file {path}")
    try:
        return _READERS[path.suffix](path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file") from error


def _grid(scores: dict[tuple[int, int], float], source: str) -> Ranking:
    if not scores:
        raise UserError(f"{source} names no head")
    layers, heads = (max(column) + 1 for column in zip(*scores, strict=True))
    if layers * heads > 10**6:
        raise UserError(f"{source} names head {layers - 1}-{heads - 1}: no LLM has that many")
    grid = np.full((layers, heads), np.nan)
    for (layer, head), score in scores.items():
        grid[layer, head] = score
    return Ranking(grid, False, source)


def _head(name: Any, source: str) -> tuple[int, int]:
    match = _HEAD.fullmatch(str(name))
    if not match:
        raise UserError(f"{source}: {str(name)[:40]!r} is not a head; layer-head is expected, 13-18 say")
    return int(match[1]), int(match[2])


def _finite(values: Iterable[Any], where: str) -> list[float]:
    numbers = list(values)
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x) for x in numbers):
        raise UserError(f"{where}: finite numbers are expected")
    return [float(number) for number in numbers]


def _from_json(text: str, source: str) -> Ranking:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is not JSON: {error}") from error
    if not isinstance(record, dict) or not all(isinstance(value, list) and value for value in record.values()):
        raise UserError(f'{source}: {{"layer-head": [score, …], …}} is expected, with a score at least for each head')
    pairs = [
        (_head(name, source), float(np.mean(_finite(value, f"{source}, {name}")))) for name, value in record.items()
    ]
    return _unique(pairs, source)


def _from_yaml(text: str, source: str) -> Ranking:
    try:
        record = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    listed = record.get("attn_head_set") if isinstance(record, dict) else None
    if not isinstance(listed, str) or not listed.strip():
        raise UserError(f'{source}: attn_head_set: "layer-head,layer-head,…" is expected, best first')
    names = listed.split(",")
    return _unique([(_head(name, source), 1 - place / len(names)) for place, name in enumerate(names)], source)


def _unique(pairs: list[tuple[tuple[int, int], float]], source: str) -> Ranking:
    scores = dict(pairs)
    if len(scores) < len(pairs):
        twice = next(head for head in scores if sum(head == other for other, _ in pairs) > 1)
        raise UserError(f"{source} names head {twice[0]}-{twice[1]} twice")
    return _grid(scores, source)


def _from_tsv(text: str, source: str) -> Ranking:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or len({len(line) for line in lines}) != 1:
        raise UserError(f"{source}: lines of equally many numbers are expected, a line for each layer")
    try:
        grid = np.array(lines, dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    _finite(grid.ravel().tolist(), source)
    return Ranking(grid, True, source)


_READERS: dict[str, Callable[[str, str], Ranking]] = {
    ".json": _from_json,
    ".yaml": _from_yaml,
    ".yml": _from_yaml,
    ".tsv": _from_tsv,
}


def write_ranking(ranking: Ranking, file: str | Path) -> None:
    """Write a ranking; the suffix tells the format, as for `read_ranking`. A TSV holds the grid as it is.

    Raises:
        UserError: another suffix, or a TSV of a ranking that leaves heads out.

    """
    path = Path(file)
    if path.suffix not in _READERS:
        raise UserError(f"{path}: a ranking is written as .json, .yaml or .tsv")
    ranked = {
        f"{layer}-{head}": float(ranking.scores[layer, head]) for layer, head in np.argwhere(~np.isnan(ranking.scores))
    }
    if path.suffix == ".tsv":
        if len(ranked) < ranking.scores.size:
            raise UserError(f"{path}: a .tsv holds every head, but {ranking.source} ranks {len(ranked)} only")
        text = "".join("\t".join(map(repr, row)) + "\n" for row in ranking.scores.tolist())
    elif path.suffix == ".json":
        text = json.dumps({name: [score] for name, score in ranked.items()}, indent=1) + "\n"
    else:
        best_first = sorted(ranked, key=lambda name: -ranked[name])
        text = yaml.safe_dump({"attn_head_set": ",".join(best_first)}, width=10**6)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())
