"""Results of experiments: artifacts on disk, trials of long runs, the paper's published tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
