"""Distracting text for needle tasks: a file, a folder, a hub dataset, or the prose of Python's own reference."""

import re
from pathlib import Path

from extract.errors import UserError
from extract.prompts import SENTENCE_END


def load_haystack(source: str) -> str:
    """The haystack text.

    Args:
        source: `pydoc` (the language reference shipped with every CPython), a text file, a folder of `.txt`
            files (joined in order of their names), or `hf:dataset[:split[:column]]` (default `train`, `text`).

    Raises:
        UserError: the source is missing or holds no sentence.

    """
    if source == "pydoc":
        text = _pydoc()
    elif source.startswith("hf:"):
        text = _hub(source)
    else:
        text = _files(Path(source).expanduser())
    text = " ".join(text.split())
    if not SENTENCE_END.search(text):
        raise UserError(f"haystack '{source}': it holds no sentence; give a text of a few paragraphs at least")
    return text


def _files(path: Path) -> str:
    if path.is_dir():
        files = sorted(path.glob("*.txt"))
        if not files:
            raise UserError(f"haystack '{path}': the folder holds no .txt file")
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"haystack '{path}': no such file or folder; `pydoc` needs none")
    try:
        return "\n\n".join(file.read_text(encoding="utf-8") for file in files)
    except UnicodeDecodeError as error:
        raise UserError(f"haystack '{path}': not UTF-8 text ({error.reason})") from error


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
