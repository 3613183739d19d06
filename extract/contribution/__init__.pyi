from .discovery import readout_of as readout_of
from .frozen_norm import FrozenNorm as FrozenNorm
from .logit_contributions import LogitContributions as LogitContributions
from .readout import LayerWrite as LayerWrite
from .readout import Readout as Readout
from .sources import Sources as Sources
from .sources import Spans as Spans
from .sources import prompt_sources as prompt_sources
