from .attribution import Attribution as Attribution
from .outcomes import COSTS as COSTS
from .outcomes import METRICS as METRICS
from .outcomes import AttributionOutcomes as AttributionOutcomes
from .plots import plot_cost as plot_cost
from .trial import Evaluation as Evaluation
from .trial import attribution_trials as attribution_trials
