from .plots import LABELS as LABELS
from .table import pair_of as pair_of
from .table import reference_condition as reference_condition
