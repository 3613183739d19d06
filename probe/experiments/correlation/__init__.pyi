from .correlation import FIGURES as FIGURES
from .correlation import KINDS as KINDS
from .plots import LINE_STYLES as LINE_STYLES
from .plots import TITLES as TITLES
