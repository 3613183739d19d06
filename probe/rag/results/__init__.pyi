from .outcomes import RagOutcomes as RagOutcomes
from .trace import Trace as Trace
from .trace import run_metrics as run_metrics
from .trace import run_trace as run_trace
from .trace_viewer import print_trace as print_trace
from .trace_viewer import read_traces as read_traces
