from .config.config_files import copy_configs as copy_configs
from .config.config_files import find_config as find_config
from .config.config_files import shipped_configs as shipped_configs
from .config.config_files import shipped_files as shipped_files
from .lightning_cli import StageCLI as StageCLI
from .lightning_cli import StageParser as StageParser
from .parser import Parser as Parser
from .parser import run_command as run_command
