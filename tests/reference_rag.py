"""A slow, obvious masked dynamic RAG: no cache, no batch, every token a full forward with its mask written out."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from extract.answers import ANSWER_END
from extract.pieces import ends_sentence, first_characters, sentences, spell, words
from extract.prompt import Span
from probe.rag.content import StopWords

Choose = Callable[[Tensor, Tensor], list[int]]
Word = tuple[str, float, bool]
"""A drafted word's text, its RIND value, and whether it carries content and so may fire."""


@dataclass
class Settings:
    """What the algorithm leaves to choose."""

    threshold: float = 1.0
    attention: Literal["sentence", "plain"] = "sentence"
    heads: int = 5  # for the caller's `choose`; not read here
    k: int = 16
    gap: int = 8
    width: int = 48
    draft_length: int = 64
    length: int = 100
    retries: int = 2
    marker: str = "So the answer is"
    answer_end: str = ANSWER_END


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Plain softmax attention for a while."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def inputs(model: Any, ids: list[int], hidden: set[int]) -> dict[str, Any]:
    """Tokens, unmoved positions and the additive mask: no query sees a hidden key, but the hidden token itself."""
    n = len(ids)
    allowed = torch.zeros(n, n, dtype=torch.bool)
    for query in range(n):
        allowed[query, : query + 1] = True
    for key in hidden:
        allowed[:, key] = False
        allowed[key, key] = True  # a row must not be empty; nobody else sees what comes of it
    mask = torch.zeros(n, n, dtype=model.dtype).masked_fill(~allowed, torch.finfo(model.dtype).min)
    return {
        "input_ids": torch.tensor([ids], device=model.device),
        "position_ids": torch.arange(n, device=model.device)[None],
        "attention_mask": mask[None, None].to(model.device),
        "use_cache": False,
    }


def greedy(
    llm: Any, before: list[int], said: list[int], hidden: set[int], limit: int, stop: Callable[[str], bool]
) -> tuple[list[int], list[float], bool]:
    """New tokens, the entropies of the distributions that they were taken from, and whether an end token came."""
    new, entropies = list[int](), list[float]()
    while len(new) < max(1, limit):
        logits = llm.model(**inputs(llm.model, before + said + new, hidden), logits_to_keep=1).logits[0, -1].float()
        token = int(logits.argmax())
        if token in llm.end_tokens:
            return new, entropies, True
        p = torch.softmax(logits, dim=-1)
        entropies.append(float(-(p * torch.log_softmax(logits, dim=-1)).sum()))
        new.append(token)
        if stop(spell(llm.tokenizer, said + new).text):
            break
    return new, entropies, False


def answered(text: str, s: Settings) -> bool:
    """Whether the marker and a whole answer behind it are there."""
    found = re.search(re.escape(s.marker), " " + text, re.IGNORECASE)
    return bool(found and re.search(s.answer_end, (" " + text)[found.end() :].lstrip(" :\n\t")))


def attention_paid(model: Any, draft: list[int], s: Settings) -> list[float]:
    """The largest attention each token of a lone draft is paid, mean over the heads of the last layer."""
    last = model(**inputs(model, draft, set()), output_attentions=True).attentions[-1][0].float()  # head, query, key
    paid = []
    for key in range(len(draft)):
        first = key if s.attention == "sentence" else key + 1
        paid.append(float(last[:, first:, key].max(dim=-1).values.mean()) if first < len(draft) else 0.0)
    return paid


def rind(
    llm: Any, said: list[int], draft: list[int], entropies: list[float], s: Settings
) -> list[tuple[int, list[Word]]]:
    """Start and drafted words of every sentence that holds any, in order."""
    spelled = spell(llm.tokenizer, said + draft)
    places = first_characters(spelled)[len(said) :]
    paid = attention_paid(llm.model, draft, s) if draft else []
    found = []
    for start, end in sentences(spelled.text):
        texts, entropy, attention = list[str](), list[float](), list[float]()
        for a, b in words(spelled.text):
            mine = [number for number, place in enumerate(places) if a <= place < b]
            if start <= a < end and mine:
                texts.append(spelled.text[a:b])
                entropy.append(sum(entropies[number] for number in mine) / len(mine))
                attention.append(sum(paid[number] for number in mine))
        if s.attention == "sentence":
            total = sum(attention)
            attention = [share / total * len(attention) if total > 0 else 0.0 for share in attention]
        marks = StopWords().mark(texts)
        values = [e * a if content else 0.0 for e, a, content in zip(entropy, attention, marks, strict=True)]
        if texts:
            found.append((start, list(zip(texts, values, marks, strict=True))))
    return found


def windows(rows: Tensor, context: Span, s: Settings) -> list[Span]:
    """Windows round the positions of the context that the chosen heads' rows attend most, merged, in order."""
    score = rows.float().mean(dim=0).tolist()
    first, last = context
    top = sorted(sorted(range(first, last), key=lambda position: -score[position])[: s.k])
    clusters: list[list[int]] = []
    for position in top:
        if clusters and position - clusters[-1][-1] <= s.gap:
            clusters[-1].append(position)
        else:
            clusters.append([position])
    shown: set[int] = set()
    for cluster in clusters:
        best = max(cluster, key=lambda position: score[position])
        start = max(first, min(best - s.width // 2, last - s.width))
        shown |= set(range(start, min(start + s.width, last)))
    edges = [position for position in sorted(shown) if position - 1 not in shown]
    return [(a, next(b for b in range(a, last + 1) if b not in shown)) for a in edges]


@torch.no_grad()
def reference_run(
    llm: Any, ids: list[int], context: Span, choose: Choose, s: Settings
) -> tuple[list[int], list[dict[str, Any]]]:
    """Generated tokens without an end token, and one record per round (a draft and what came of it)."""
    everything = set(range(*context))
    hidden, said, rounds, fired = set(everything), list[int](), list[dict[str, Any]](), Counter[int]()
    with eager(llm.model):
        finished = False
        while not finished:
            limit = min(s.draft_length, s.length - len(said))
            draft, entropies, ended = greedy(llm, ids, said, hidden, limit, lambda text: answered(text, s))
            judged = rind(llm, said, draft, entropies, s)
            over = [start for start, found in judged if any(mark and value > s.threshold for _, value, mark in found)]
            start = next((start for start in over if fired[start] < s.retries), None)
            record = {"hit": start is not None, "words": [word[:2] for _, found in judged for word in found]}
            if start is not None:
                fired[start] += 1
                places = first_characters(spell(llm.tokenizer, said + draft))
                said = [token for token, place in zip(said + draft, places, strict=True) if place < start]
                seen = llm.model.base_model(**inputs(llm.model, ids + said, set()), output_attentions=True)
                rows = torch.cat([layer[0, :, -1] for layer in seen.attentions])
                heads = choose(seen.last_hidden_state[0, -1], rows)
                spans = windows(rows[heads], context, s)
                hidden = everything - {position for span in spans for position in range(*span)}
                limit = min(s.draft_length, s.length - len(said))
                kept = spell(llm.tokenizer, said).text.rstrip()

                def done(text: str, kept: str = kept) -> bool:
                    return (ends_sentence(text) and len(text.rstrip()) > len(kept)) or answered(text, s)

                new, _, ended = greedy(llm, ids, said, hidden, limit, done)
                said, ended = said + new, ended or not new
                rounds.append({**record, "windows": spans, "heads": heads})
            else:
                said, hidden = said + draft, set(everything)
                rounds.append({**record, "windows": None, "heads": None})
            finished = answered(spell(llm.tokenizer, said).text, s) or ended or len(said) >= s.length
    return said, rounds
