from .classification import Ranked as Ranked
from .classification import best_threshold as best_threshold
from .gathered_rows import KeptRows as KeptRows
from .intervals import interval as interval
from .intervals import jackknife as jackknife
from .intervals import mean_interval as mean_interval
from .intervals import paired as paired
from .regression import Regression as Regression
