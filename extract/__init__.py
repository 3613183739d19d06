"""From a frozen language model to a score store: models, attention, generation, tasks, storage, pipeline."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
