from .identity import LLMIdentity as LLMIdentity
from .llm import CHUNK as CHUNK
from .llm import LLM as LLM
from .supported import is_windowed as is_windowed
from .supported import narrowest_window as narrowest_window
