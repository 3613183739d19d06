"""LightningDataModules: prompts for the frozen model, score rows for probes."""

from datamodules.prompts import Prompts
from datamodules.rows import Rows, ScoreRows
from datamodules.splits import Split

__all__ = ["Prompts", "Rows", "ScoreRows", "Split"]
