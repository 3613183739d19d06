from .commands import ranking as ranking
from .lightning_cli import Parser as Parser
