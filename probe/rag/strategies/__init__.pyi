from .base import RetrievalState as RetrievalState
from .base import Retrieved as Retrieved
from .base import Strategy as Strategy
from .windows import Windows as Windows
from .windows import merge_spans as merge_spans
