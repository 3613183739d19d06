"""Traces of masked RAG: read from file, and printed in the terminal."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from extract.errors import UserError
from extract.utils import parse_hashed, printable, read_lines, user_path
from probe.rag.results.trace import Trace
from probe.rag.results.trace_form import check_trace


def read_traces(path: str | Path) -> Iterator[Trace]:
    """The runs of a `traces.jsonl`, one by one.

    Raises:
        UserError: no such file, or a line that is not a trace or does not match its hash.

    """
    file = user_path(path)
    if not file.is_file():
        raise UserError(f"no traces at {path}; `lightning test -c configs/rag.yaml` writes traces.jsonl")
    for where, line in read_lines(file):
        try:
            found, _ = parse_hashed(line.encode())
        except ValueError as error:
            raise UserError(f"{where}, is no trace of masked RAG ({error})") from error
        check_trace(found, f"{where}, is no trace of masked RAG")
        yield found


def print_trace(trace: Trace, console: Console) -> None:
    """Print a run: drafts with RIND values, heads, windows, rewritten sentences, answer."""
    metrics = trace["metrics"]
    console.rule(_safe(f"{trace['id']} · {trace['strategy']}"))
    console.print(_safe(trace["question"], "bold"), _safe(f"gold: {trace['gold']}", "green"), sep="\n")
    for number, round_ in enumerate(trace["rounds"], start=1):
        console.print(Text(f"\n{number}. draft", style="bold cyan"))
        console.print(_draft(round_))
        if round_["windows"] is not None:
            _print_retrieval(round_, console)
    console.print(Text("\nanswer ", style="bold"), _safe(trace["text"]), sep="")
    if continuation := trace.get("continuation"):
        console.print(Text("forced ", style="bold"), _safe(continuation.strip()), sep="")
    summary = [f"EM {metrics['em']:.0f}", f"F1 {metrics['f1']:.2f}", f"stopped: {trace['stop']}"]
    if "f1_forced" in metrics:
        summary.insert(2, f"forced EM {metrics['em_forced']:.0f}, F1 {metrics['f1_forced']:.2f}")
    console.print(_safe(" · ".join((*summary, f"{metrics.get('forward_tokens', 0):,} tokens run")), "dim"))


def _print_retrieval(round_: dict[str, Any], console: Console) -> None:
    heads = ", ".join(f"{layer}-{head}" for layer, head in round_["heads"] or ()) or "no heads"
    console.print(_safe(f"   kept “{round_['kept'].strip()}”; heads {heads}", "dim"))
    for window in round_["windows"]:
        title = f"tokens {window['start']} to {window['end']}"
        text = re.sub(r"\s*\n\s*", "\n", window["text"].strip())  # without blank lines it fits the screen
        console.print(Panel(_safe(text), title=_safe(title), border_style="blue", title_align="left"))
    console.print(Text("   rewritten: ", style="bold cyan"), _safe(str(round_["rewrite"]).strip()), sep="")


def _draft(round_: dict[str, Any]) -> Text:
    """Drafted words with their RIND values; the word that fires is marked by brackets and colour."""
    line = Text("   ")
    for number, word in enumerate(round_["words"]):
        fires = number == round_["hit"]
        line.append(_safe(f"⟦{word['text']}⟧" if fires else word["text"], "bold red" if fires else ""))
        if word["value"]:
            line.append(f" {word['value']:.1f}", style="red" if fires else "dim")
        line.append(" ")
    return line


def _safe(text: str, style: str = "") -> Text:
    """Text of data in a style of the viewer's own."""
    return Text(printable(text.replace("\t", " "), keep="\n"), style=style)
