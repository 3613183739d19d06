"""Claim 1: dynamic heads change from step to step (Table 1, Figs. 1 and 5)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
