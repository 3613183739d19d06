"""The experiment on diagnoses: causes of failed answers, interventions on held-out ones, prediction of failure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
