"""Attribution: which parts of its context an answer rests on, from the heads that act at each of its tokens."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
