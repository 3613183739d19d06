"""Sentences of a context by BM25."""

import re

import bm25s

from extract.prompt import Span


def best_sentences(sentences: list[tuple[Span, str]], query: str, tokens: int) -> list[Span]:
    """Spans of the sentences that fit the query best, until they hold `tokens` tokens."""
    index = bm25s.BM25()
    index.index([_words(text) for _, text in sentences], show_progress=False)
    known = [word for word in _words(query) if word in index.vocab_dict]
    scores = index.get_scores(known) if known else [0.0] * len(sentences)
    order = sorted(range(len(sentences)), key=lambda number: (-scores[number], number))
    found, held = list[Span](), 0
    for number in order:
        if held >= tokens:
            break
        (start, end), _ = sentences[number]
        found.append((start, end))
        held += end - start
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
