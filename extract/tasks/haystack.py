"""Haystacks: distracting text from a file, a folder, the hub or Python's reference, and excerpts of exact length."""

import bisect
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from extract.errors import UserError
from extract.prompts import SENTENCE_END, tokenize_with_offsets
from extract.tasks.insertion import Insertion, Placement, boundary_ends, boundary_of, insert_needle
from extract.utils import UnreadableError, read_text, shortened, user_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MOST_BYTES = 2**28
"""Size of a haystack's files: tokenizers need many times as much memory."""


def load_haystack(source: str) -> str:
    """Load the text of a haystack; runs of whitespace become one space.

    Args:
        source: `pydoc` (the language reference shipped with every CPython), a text file, a folder of `.txt`
            files (joined in order of their names; empty ones and those that are not UTF-8 are left out and counted),
            or `hf:dataset[:split[:column]]` (default `train`, `text`).

    Raises:
        UserError: the source is missing or holds no text.

    >>> text = load_haystack("pydoc")
    >>> len(text) > 50_000, len(text.splitlines())
    (True, 1)

    """
    if source == "pydoc":
        text = _pydoc()
    elif source.startswith("hf:"):
        text = _hub(source)
    else:
        text = _files(user_path(source))
    text = " ".join(text.split())
    if not text:
        raise UserError(f"haystack '{source}': it holds no sentence; give a text of at least a few paragraphs")
    return text


def _files(path: Path) -> str:
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise UserError(f"haystack '{path}': no such file or folder; `pydoc` needs none")
    return read_text(path, MOST_BYTES)


def _folder(path: Path) -> str:
    """Texts of a folder's .txt files; what is left out is reported by kind."""
    texts, left_out, size = list[str](), dict[str, list[str]](), 0
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or not file.is_file():
            continue
        if file.suffix != ".txt":
            left_out.setdefault(f"not .txt but {file.suffix or 'without an ending'}", []).append(file.name)
            continue
        if (size := size + file.stat().st_size) > MOST_BYTES:
            raise UserError(f"haystack '{path}': its .txt files are larger than {MOST_BYTES:,} bytes, the most read")
        try:
            text = read_text(file, MOST_BYTES)
        except UnreadableError:
            left_out.setdefault("not UTF-8 text", []).append(file.name)
            continue
        if text.strip():
            texts.append(text)
        else:
            left_out.setdefault("empty", []).append(file.name)
    reasons = [f"{len(names)} {why} ({shortened(names)})" for why, names in left_out.items()]
    if not texts:
        why = f": left out are {', '.join(reasons)}" if reasons else ""
        raise UserError(f"haystack '{path}': the folder holds no .txt file with text{why}")
    if reasons:
        _report(f"haystack '{path}': {len(texts)} files; left out: {', '.join(reasons)}")
    return "\n\n".join(texts)


def _report(line: str) -> None:
    from lightning.pytorch.utilities import rank_zero_info  # here, so that tasks import without lightning

    rank_zero_info(line)


def _hub(source: str) -> str:
    import datasets

    name, split, column = [*source.removeprefix("hf:").split(":"), "", ""][:3]
    column = column or "text"
    try:
        rows = datasets.load_dataset(name, split=split or "train")
    except (OSError, ValueError) as error:
        raise UserError(f"haystack '{source}': cannot be loaded ({' '.join(str(error).split())[:200]})") from error
    if column not in rows.column_names:
        raise UserError(f"haystack '{source}': no column '{column}'; there is {', '.join(rows.column_names)}")
    return "\n\n".join(str(text) for text in rows[column])


def _pydoc() -> str:
    """Paragraphs of the reference that read as prose: flush left, a capital first, a sentence end last."""
    from pydoc_data.topics import topics

    paragraphs = (p for topic in sorted(topics) for p in re.split(r"\n\s*\n", topics[topic]))
    prose = (p for p in paragraphs if re.match(r"[A-Z]\w*[ ,]", p) and SENTENCE_END.search(p.rstrip()[-2:]))
    return "\n\n".join(dict.fromkeys(p for p in prose if "::=" not in p and "***" not in p))


class Haystack:
    """A text tokenized once, of which excerpts of exact length are cut.

    Args:
        text: The text.
        tokenizer: The model's.

    Attributes:
        boundary: After what excerpts begin and needles are inserted.

    """

    def __init__(self, text: str, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.text, self._tokenizer = text, tokenizer
        self._token_ends = self._ends(text)
        self.boundary = boundary_of(text)
        ends = [0, *boundary_ends(text, self.boundary, self._token_ends)]
        self._starts = [end + (text[end : end + 1] == " ") for end in ends[:-1]]

    @functools.lru_cache(maxsize=4)  # noqa: B019 (a haystack lives as long as its run; a grid has each excerpt often)
    def _ends(self, text: str) -> list[int]:
        """Last character of each token, exclusive."""
        return [end for _, end in tokenize_with_offsets(self._tokenizer, text, special=False).offsets]

    def excerpt(self, start: float, length: int) -> str:
        """`length` tokens from a sentence on, repeated from the top where the text ends before.

        Args:
            start: Which sentence, as a share of all sentences in [0, 1); which word, where sentence ends are few.
            length: Tokens.

        """
        first = self._starts[int(start * len(self._starts))]
        token = bisect.bisect_right(self._token_ends, first)
        text, left = self.text[first:], length
        while left > len(self._token_ends) - token:
            left -= len(self._token_ends) - token
            text, first, token = f"{text} {self.text}", -len(text) - 1, 0
        return text[: self._token_ends[token + left - 1] - first]

    def insert(self, excerpt: str, needle: str, depth: float, placement: Placement) -> Insertion:
        """The excerpt with the needle at a boundary before, or nearest to, a depth in percent of its tokens."""
        return insert_needle(excerpt, needle, depth, self._ends(excerpt), self.boundary, placement)
