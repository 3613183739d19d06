"""Reference implementation of masked dynamic RAG: no cache, no batch, full forwards with an explicit mask.

Text is processed character by character. Of the code under test it uses the list of function words, and guesses of what
is generated: a guess counts as far as one forward over it gives its tokens. A wrong one costs forwards, never a token.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from probe.rag import StopWords

Span = tuple[int, int]
Choose = Callable[[Tensor, Tensor], list[int]]
Word = tuple[str, float, bool]
"""A drafted word's text, its RIND value, and whether it is a content word, which may fire."""


@dataclass
class Settings:
    """Settings of Algorithms 1 and 2."""

    threshold: float = 1.0
    attention: Literal["sentence", "plain"] = "sentence"
    heads: int = 5  # for the caller's `choose`; not used here
    k: int = 16
    gap: int = 8
    width: int = 48
    draft_length: int = 64
    length: int = 100
    retries: int = 2
    marker: str = "So the answer is"
    concat: bool = False  # remove hidden tokens instead of masking them
    guesses: Iterator[Sequence[int]] = field(default_factory=lambda: iter(()))  # one for each generation, in order


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Eager attention within the context."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def inputs(model: Any, ids: list[int], hidden: set[int]) -> dict[str, Any]:
    """Tokens, original positions and the additive mask: a hidden key is visible to its own query alone."""
    n = len(ids)
    allowed = torch.zeros(n, n, dtype=torch.bool)
    for query in range(n):
        allowed[query, : query + 1] = True
    for key in hidden:
        allowed[:, key] = False
        allowed[key, key] = True  # a softmax over no key is undefined; no visible token attends to this one
    mask = torch.zeros(n, n, dtype=model.dtype).masked_fill(~allowed, torch.finfo(model.dtype).min)
    return {
        "input_ids": torch.tensor([ids], device=model.device),
        "position_ids": torch.arange(n, device=model.device)[None],
        "attention_mask": mask[None, None].to(model.device),
        "use_cache": False,
    }


def greedy(
    llm: Any,
    prompt: list[int],
    answer: list[int],
    hidden: set[int],
    limit: int,
    stop: Callable[[str], bool],
    s: Settings,
) -> tuple[list[int], list[float], bool]:
    """New tokens, the entropies of their next-token distributions, and whether an end token followed."""
    if s.concat:
        prompt, hidden = [token for position, token in enumerate(prompt) if position not in hidden], set()
    new, entropies, guess = list[int](), list[float](), list(next(s.guesses, ()))
    while True:
        ahead = guess[len(new) :] if guess[: len(new)] == new else []
        forward = inputs(llm.model, prompt + answer + new + ahead, hidden)
        following = llm.model(**forward, logits_to_keep=1 + len(ahead)).logits[0].float()
        for logits, guessed in zip(following, [*ahead, None], strict=True):
            if (token := int(logits.argmax())) in llm.end_tokens:
                return new, entropies, True
            p = torch.softmax(logits, dim=-1)
            entropies.append(float(-(p * torch.log_softmax(logits, dim=-1)).sum()))
            new.append(token)
            if stop(text_of(llm, answer + new)) or len(new) >= limit:
                return new, entropies, False
            if token != guessed:
                break


def text_of(llm: Any, ids: list[int]) -> str:
    """Text of tokens."""
    return str(llm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def place(llm: Any, ids: list[int], number: int) -> int:
    """Position of a token's first character that is not space; of a blank token its start."""
    start = len(text_of(llm, ids[:number]).rstrip("\ufffd"))
    text = text_of(llm, ids)
    end = len(text) if number + 1 == len(ids) else len(text_of(llm, ids[: number + 1]).rstrip("\ufffd"))
    return next((at for at in range(start, end) if not text[at].isspace()), start)


def before(llm: Any, ids: list[int], end: int) -> list[int]:
    """The tokens that begin before a character of their text."""
    return [token for number, token in enumerate(ids) if place(llm, ids, number) < end]


TITLES = "St Mr Mrs Ms Dr Prof Jr Sr Lt Col Gen Capt Mt No vs e.g i.e".split()


def sentences(text: str) -> list[Span]:
    """Start and end of each sentence; the last may be incomplete."""
    found, start = list[Span](), 0
    for at in range(len(text)):
        if text[at] == "\n" and at and not text[at - 1].isspace():
            end = at + 1
        elif text[at] in ".!?":
            end = at + 1
            while end < len(text) and text[end] in "\"'”’)]":
                end += 1
            if end < len(text) and not text[end].isspace():
                continue
        else:
            continue
        piece = text[start:end]
        opened = max((i for i, letter in enumerate(piece) if letter.isspace() or letter in "(\"'"), default=-1)
        last = piece[opened + 1 :]
        initials = last.endswith(".") and all(len(x) == 1 and "A" <= x <= "Z" for x in last[:-1].split("."))
        if piece.strip() and not initials and not (last.endswith(".") and last[:-1] in TITLES):
            found.append((start, end))
            start = end
    return [*found, (start, len(text))] if text[start:].strip() else found


def words(text: str) -> list[Span]:
    """Start and end of each word."""
    starts = [i for i in range(len(text)) if not text[i].isspace() and (i == 0 or text[i - 1].isspace())]
    return [(a, next((b for b in range(a, len(text)) if text[b].isspace()), len(text))) for a in starts]


def answer_end(text: str, s: Settings) -> int | None:
    """Where the answer ends: after its line, or after a full stop between three word characters and space."""
    at = text.lower().find(s.marker.lower())
    if at < 0:
        return None
    first = at + len(s.marker)
    while first < len(text) and text[first] in " :\n\t":
        first += 1
    for at in range(first, len(text)):
        if text[at] == "\n":
            return at + 1
        word = text[max(first, at - 3) : at]
        full = len(word) == 3 and all(c.isalnum() or c == "_" for c in word)
        if text[at] == "." and full and at + 1 < len(text) and text[at + 1].isspace():
            return at + 1
    return None


def sentence_end(text: str, answer: str) -> int | None:
    """Where the first sentence ends that is complete and ends after the answer so far."""
    for start, end in sentences(text):
        if end > len(answer.rstrip()) and (end < len(text) or text[start:end].endswith("\n")):
            return end
    return None


def attention_received(model: Any, draft: list[int], s: Settings) -> list[float]:
    """Largest attention that each token of a draft receives, mean over the heads of the last layer; no prompt."""
    last = model(**inputs(model, draft, set()), output_attentions=True).attentions[-1][0].float()  # head, query, key
    received = []
    for key in range(len(draft)):
        first = key if s.attention == "sentence" else key + 1
        received.append(float(last[:, first:, key].max(dim=-1).values.mean()) if first < len(draft) else 0.0)
    return received


def rind(
    llm: Any, answer: list[int], draft: list[int], entropies: list[float], s: Settings
) -> list[tuple[int, list[Word]]]:
    """Start and drafted words of every sentence with drafted words, in order."""
    text = text_of(llm, answer + draft)
    places = [place(llm, answer + draft, len(answer) + number) for number in range(len(draft))]
    received = attention_received(llm.model, draft, s) if draft else []
    found = []
    for start, end in sentences(text):
        texts, entropy, attention = list[str](), list[float](), list[float]()
        for a, b in words(text):
            inside = [number for number, place in enumerate(places) if a <= place < b]
            if start <= a < end and inside:
                texts.append(text[a:b])
                entropy.append(sum(entropies[number] for number in inside) / len(inside))
                attention.append(sum(received[number] for number in inside))
        if s.attention == "sentence":
            total = sum(attention)
            attention = [share / total * len(attention) if total > 0 else 0.0 for share in attention]
        marks = StopWords().mark(texts)
        values = [e * a if content else 0.0 for e, a, content in zip(entropy, attention, marks, strict=True)]
        if texts:
            found.append((start, list(zip(texts, values, marks, strict=True))))
    return found


def windows(rows: Tensor, context: Span, s: Settings) -> list[Span]:
    """Merged windows around the context positions that the chosen heads attend to most."""
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
) -> tuple[list[int], list[dict[str, Any]], int]:
    """Tokens without an end token, a record of each round, and how many sentences fired after their last retry."""
    everything, stuck = set(range(*context)), set[int]()
    hidden, answer, rounds, fired = set(everything), list[int](), list[dict[str, Any]](), Counter[int]()
    with eager(llm.model):
        finished = False
        while not finished:
            limit = min(s.draft_length, s.length - len(answer))
            draft, entropies, ended = greedy(
                llm, ids, answer, hidden, limit, lambda text: answer_end(text, s) is not None, s
            )
            end = answer_end(text_of(llm, answer + draft), s)
            if end is not None:
                draft = before(llm, answer + draft, end)[len(answer) :]
            evaluated = rind(llm, answer, draft, entropies, s)
            firing = [
                start for start, found in evaluated if any(mark and value > s.threshold for _, value, mark in found)
            ]
            start = next((start for start in firing if fired[start] < s.retries), None)
            if firing and fired[firing[0]] >= s.retries:
                stuck.add(firing[0])
            record = {"hit": start is not None, "words": [word[:2] for _, found in evaluated for word in found]}
            record["hidden"] = hidden  # while the last tokens of the round were generated
            if start is not None:
                fired[start] += 1
                answer = before(llm, answer + draft, start)
                last_query = llm.model.base_model(**inputs(llm.model, ids + answer, set()), output_attentions=True)
                rows = torch.cat([layer[0, :, -1] for layer in last_query.attentions])
                heads = choose(last_query.last_hidden_state[0, -1], rows)
                spans = windows(rows[heads], context, s)
                hidden = everything - {position for span in spans for position in range(*span)}
                limit = min(s.draft_length, s.length - len(answer))
                kept = text_of(llm, answer)

                def ends(text: str, kept: str = kept) -> list[int]:
                    return [end for end in (answer_end(text, s), sentence_end(text, kept)) if end is not None]

                new, _, ended = greedy(llm, ids, answer, hidden, limit, lambda text: bool(ends(text)), s)
                text = text_of(llm, answer + new)
                end = answer_end(text, s) if ends(text) and min(ends(text)) == answer_end(text, s) else None
                if ends(text):
                    new = before(llm, answer + new, min(ends(text)))[len(answer) :]
                answer, ended = answer + new, ended or not new
                rounds.append({**record, "windows": spans, "heads": heads, "hidden": hidden})
            else:
                answer, hidden = answer + draft, set(everything)
                rounds.append({**record, "windows": None, "heads": None})
            finished = end is not None or ended or len(answer) >= s.length
    return answer, rounds, len(stuck)


@torch.no_grad()
def reference_forced(
    llm: Any, ids: list[int], answer: list[int], hidden: set[int], limit: int, s: Settings
) -> list[int] | None:
    """Tokens after a forced opening under the last mask, up to the end of the answer; None if the answer has one."""
    if s.marker.lower() in text_of(llm, answer).lower():
        return None
    text = text_of(llm, answer)
    space = " " if text and not text[-1].isspace() else ""
    opening = llm.tokenizer(f"{space}{s.marker}", add_special_tokens=False)["input_ids"]
    with eager(llm.model):
        return greedy(llm, ids, answer + opening, hidden, limit, lambda text: answer_end(text, s) is not None, s)[0]
