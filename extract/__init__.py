"""The frozen language model: loading, instrumentation, decoding, tasks, scores and the score store."""

from extract.errors import UserError
from extract.fiction import Fiction
from extract.hotpotqa import HotpotQA, HubHotpotQA
from extract.jsonl import JsonLines
from extract.llm import LLM, LLMIdentity
from extract.module import Extraction
from extract.multihop import MultiHopQA
from extract.niah import NIAH
from extract.records import Source
from extract.steps import Steps, token_texts
from extract.store import ScoreStore
from extract.task import Sample, Task
from extract.writer import ScoreWriter

__all__ = [
    "LLM",
    "NIAH",
    "Extraction",
    "Fiction",
    "HotpotQA",
    "HubHotpotQA",
    "JsonLines",
    "LLMIdentity",
    "MultiHopQA",
    "Sample",
    "ScoreStore",
    "ScoreWriter",
    "Source",
    "Steps",
    "Task",
    "UserError",
    "token_texts",
]
