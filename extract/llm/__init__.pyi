from .identity import LLMIdentity as LLMIdentity
from .llm import LLM as LLM
from .llm import PREFILL_CHUNK as PREFILL_CHUNK
from .supported import is_windowed as is_windowed
from .supported import narrowest_window as narrowest_window
from .wrapped import WrappedLLM as WrappedLLM
