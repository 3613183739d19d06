"""Attribution methods, each a class that a config names by `class_path`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
