from .correlation import FIGURES as FIGURES
from .correlation import KINDS as KINDS
from .plots import LOOKS as LOOKS
from .plots import TITLES as TITLES
