"""The report: one HTML file of all results, with an explorer of heads over time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
