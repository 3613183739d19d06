"""LightningDataModules: prompts for the frozen model, score rows for probes, whole samples for experiments."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
