"""Metrics of a generated answer against the gold answer: exact match and F1 of HotpotQA, containment, ROUGE-L."""

import re
import string
from collections import Counter


def rouge_l(reference: str, answer: str) -> float:
    """ROUGE-L F-measure: harmonic mean of precision and recall of the longest common subsequence of words, in [0, 1].

    Computed by rouge-score (Lin 2004), without stemming.

    >>> round(rouge_l("the cat sat", "the cat ran"), 4)
    0.6667

    """
    from rouge_score.rouge_scorer import RougeScorer

    return float(RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure)


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = ("yes", "no", "noanswer")


def normalize(answer: str) -> str:
    """SQuAD normalization: lower case, without ASCII punctuation, English articles and extra space, in this order.

    >>> normalize("The  U.S. Senate!")
    'us senate'

    """
    bare = answer.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(answer: str, gold: str) -> float:
    """Exact match (EM): 1 if both are the same after SQuAD normalization, else 0.

    >>> exact_match("The Beatles.", "beatles"), exact_match("Beatles", "Wings")
    (1.0, 0.0)

    """
    return float(normalize(answer) == normalize(gold))


def f1(answer: str, gold: str) -> float:
    """F1 over normalized words as multisets, in [0, 1], as HotpotQA's official script computes it.

    `2PR / (P + R)` with precision `P` = common words / words of the answer and recall `R` = common words / words of
    the gold answer. 0 when the two differ and one is yes, no or noanswer, whose parts have no meaning.

    >>> f1("in Golden Valley", "Golden Valley"), f1("yes, it is", "yes")
    (0.8, 0.0)

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


def contains(text: str, gold: str, answer: str = "") -> float:
    """Containment: 1 if the normalized gold answer is in the normalized text as whole words, else 0.

    An upper bound of exact match, lenient to a text that names several candidates. yes, no and noanswer occur as other
    words, too ("no other"), so they count only as the first word of the text or of the extracted answer, and not where
    one of these begins with yes and the other one with no.

    Args:
        text: Whole generation.
        gold: Gold answer.
        answer: Answer that was extracted from the text.

    >>> contains("He moved to New York City.", "New York"), contains("He is a Yorker.", "York")
    (1.0, 0.0)
    >>> contains("Yes, both are.", "yes"), contains("There is no other.", "no"), contains("No. They are.", "no", "yes")
    (1.0, 0.0, 0.0)

    """
    wanted = normalize(gold)
    if wanted not in _CLOSED:
        return float(f" {wanted} " in f" {normalize(text)} ")
    first_words = {normalize(part).partition(" ")[0] for part in (text, answer)}
    return float(first_words & set(_CLOSED) == {wanted})
