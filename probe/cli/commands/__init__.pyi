from .configs import configs as configs
from .overlap import overlap as overlap
from .ranking import ranking as ranking
from .report import report as report
from .trace import trace as trace
