"""Fields that a trace of masked RAG must have."""

from typing import Any

from extract.utils import check_form

NUMBER = (int, float)
MAYBE_NUMBER = (int, float, type(None))
TRACE = {
    **dict.fromkeys(("id", "strategy", "question", "gold", "text", "stop"), str),
    "context": [int],
    "evidence": [[int]],
    "metrics": {"em": NUMBER, "f1": NUMBER},
    "rounds": [
        {
            "draft": str,
            "words": [{"text": str, "value": MAYBE_NUMBER}],
            "hit": (int, type(None)),
            "kept": str,
            "rewrite": (str, type(None)),
        }
    ],
}
WINDOW = {"start": int, "end": int, "text": str}


def check_trace(trace: Any, where: str) -> None:
    """Refuse a trace that lacks a field or has one of another type.

    Args:
        trace: A line of `traces.jsonl`.
        where: Its place, for the message.

    Raises:
        UserError: naming the field.

    """
    check_form(trace, TRACE, where)
    for name in ("forward_tokens", "em_forced", "f1_forced"):
        check_form(trace["metrics"].get(name, 0), NUMBER, f"{where}, metrics, {name}")
    check_form(trace.get("continuation"), (str, type(None)), f"{where}, continuation")
    for number, round_ in enumerate(trace["rounds"]):
        place = f"{where}, rounds, {number}"
        for key, form in (("windows", [WINDOW]), ("heads", [[int]])):
            check_form(round_, {key: (list, type(None))}, place)
            check_form(round_[key] or [], form, f"{place}, {key}")
        for head in round_["heads"] or ():
            check_form(head, lambda pair: "" if len(pair) == 2 else "a head is [layer, head]", f"{place}, heads")
