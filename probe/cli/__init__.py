"""The command line: one LightningCLI for every stage, and the commands that read results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
