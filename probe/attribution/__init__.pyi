from .ablated_runs import AblatedRuns as AblatedRuns
from .prompts import SourcedPrompt as SourcedPrompt
from .prompts import SourcedPrompts as SourcedPrompts
from .record import AttributionRecord as AttributionRecord
from .record import record_answers as record_answers
from .sources import Source as Source
from .sources import Unit as Unit
from .sources import split_sources as split_sources
