"""Learned head weights: ablation effects of training answers, weights that predict them, and the choice of a method."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
