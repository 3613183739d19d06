from .extraction import Extracted as Extracted
from .extraction import Extraction as Extraction
from .llm_module import LLMStage as LLMStage
from .score_writer import ScoreWriter as ScoreWriter
