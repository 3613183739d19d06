"""The frozen language model: loading, instrumentation, decoding, tasks, scores and the score store."""

from extract.errors import UserError
from extract.llm import LLM, LLMIdentity
from extract.module import Extraction
from extract.niah import NIAH
from extract.store import ScoreStore
from extract.task import Sample, Task
from extract.writer import ScoreWriter

__all__ = ["LLM", "NIAH", "Extraction", "LLMIdentity", "Sample", "ScoreStore", "ScoreWriter", "Task", "UserError"]
