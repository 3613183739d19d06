"""Content words, the semantic filter of RIND: only those may trigger a retrieval."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from extract.errors import UserError

FUNCTION_WORDS = frozenset(
    """
a an the this that these those each every either neither both all any some no none such same other another
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself we us our
ours ourselves they them their theirs themselves one oneself who whom whose which what whoever whatever whichever
someone somebody something anyone anybody anything everyone everybody everything nobody nothing
about above across after against along amid among around as at before behind below beneath beside besides between
beyond by concerning despite down during except for from in inside into like near of off on onto opposite out outside
over past per regarding since than through throughout till to toward towards under underneath until unto up upon via
with within without
and but or nor so yet if because although though unless whereas while whether lest once
be am is are was were been being have has had having do does did doing done can could may might must shall should will
would ought
not n't never always also just only very too quite rather more most less least much many few enough even still already
again ever often sometimes usually perhaps maybe however therefore thus hence moreover furthermore then there here now
when where why how
ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he's i'm isn't it's let's she's shouldn't that's
there's they're wasn't we're weren't won't wouldn't you're
yes oh well
""".split()
)
"""English words of the closed classes (articles, pronouns, prepositions, conjunctions, auxiliaries, particles) and the
most frequent adverbs: what a tagger would not call NOUN, ADJ, VERB, PROPN or NUM."""
TAGS = frozenset({"NOUN", "ADJ", "VERB", "PROPN", "NUM"})
"""DRAGIN's content words, as Universal POS tags."""
PUNCTUATION = ".,;:!?\"'()[]{}<>`*_-–—…“”‘’"


class ContentWords(ABC):
    """Classifies words as content or function words."""

    @abstractmethod
    def mark(self, words: Sequence[str]) -> list[bool]:
        """Whether each word of a sentence is a content word."""


class StopWords(ContentWords):
    """Content words by a stop list: every word with a letter or a digit that is not on it.

    Args:
        words: The list, in lower case; by default English function words.

    >>> StopWords().mark(["The", "(province)", "of", "Westria,", "1950."])
    [False, True, False, True, True]

    """

    def __init__(self, words: list[str] | None = None) -> None:
        self.words = FUNCTION_WORDS if words is None else frozenset(word.lower() for word in words)

    def mark(self, words: Sequence[str]) -> list[bool]:
        """Whether each word, without punctuation around it, is off the list."""
        stripped = [word.replace("’", "'").strip(PUNCTUATION).lower() for word in words]
        return [any(c.isalnum() for c in word) and word not in self.words for word in stripped]


class PosTags(ContentWords):
    """Content words by part of speech: nouns, adjectives, verbs, proper nouns and numbers, as in DRAGIN's code.

    Args:
        model: An installed spaCy pipeline with a tagger, such as `en_core_web_sm`.

    """

    def __init__(self, model: str = "en_core_web_sm") -> None:
        self.model = model
        self._pipeline: Any = None

    def mark(self, words: Sequence[str]) -> list[bool]:
        """Whether any token that the pipeline makes of a word has one of the tags.

        Raises:
            UserError: spaCy or the pipeline is not installed.

        """
        marks = [False] * len(words)
        # The word of each character of the joined text, the space after a word included.
        word_at = [number for number, word in enumerate(words) for _ in range(len(word) + 1)]
        for token in self._load()(" ".join(words)):
            marks[word_at[token.idx]] |= token.pos_ in TAGS
        return marks

    def _load(self) -> Any:
        if self._pipeline is None:
            try:
                import spacy

                self._pipeline = spacy.load(self.model)
            except (ImportError, OSError) as error:
                raise UserError(
                    f"rag content: spaCy's pipeline '{self.model}' is not installed; pip install spacy and "
                    f"python -m spacy download {self.model}, or use probe.rag.StopWords"
                ) from error
        return self._pipeline
