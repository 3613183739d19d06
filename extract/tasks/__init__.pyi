from .base import PromptBatch as PromptBatch
from .base import Sample as Sample
from .base import Task as Task
from .multihop_qa import MultiHopQA as MultiHopQA
