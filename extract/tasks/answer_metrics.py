"""Answers to questions: found in what was generated, and evaluated as HotpotQA's official script evaluates them."""

import re
import string
from collections import Counter


def rouge_l(reference: str, answer: str) -> float:
    """ROUGE-L F measure, by rouge-score."""
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure)


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = ("yes", "no", "noanswer")


def normalize(answer: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra space, in this order (SQuAD)."""
    bare = answer.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(answer: str, gold: str) -> float:
    """1 if both are the same after normalization, else 0."""
    return float(normalize(answer) == normalize(gold))


def f1(answer: str, gold: str) -> float:
    """F1 over normalized words, counted as often as they occur.

    0 when the two differ and one is yes, no or noanswer: half of such an answer is not half right.
    """
    said, wanted = normalize(answer), normalize(gold)
    if said != wanted and (said in _CLOSED or wanted in _CLOSED):
        return 0.0
    said_words, wanted_words = Counter(said.split()), Counter(wanted.split())
    same = (said_words & wanted_words).total()
    if not same:
        return 0.0
    precision, recall = same / said_words.total(), same / wanted_words.total()
    return 2 * precision * recall / (precision + recall)


ANSWER_END = r"\n|(?<=\w\w\w)\.(?=\s|$)"
"""Where an answer ends: its line, or a full stop behind a word of three letters or more (not `St.`, not `3.5`)."""


def find_answer(generated: str, marker: str = "", end: str = ANSWER_END) -> str | None:
    """The answer in a generation.

    Args:
        generated: The text the model gave.
        marker: What stands before the answer, in any case (`So the answer is`); its first occurrence counts, since
            small models go on to questions of their own. Empty where the answer stands alone.
        end: A regular expression; the answer ends before its first match.

    Returns:
        The answer without a closing full stop, or None if the marker is missing.

    """
    found = re.search(re.escape(marker), generated, flags=re.IGNORECASE)
    if not found:
        return None
    answer = generated[found.end() :].lstrip(" :\n\t")
    return re.split(end, answer, maxsplit=1)[0].strip().removesuffix(".").strip()
