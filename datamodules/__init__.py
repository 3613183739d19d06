"""LightningDataModules: prompts for the frozen model, score rows for probes, whole samples for figures over steps."""

from datamodules.prompts import Prompts
from datamodules.rows import Rows, ScoreRows
from datamodules.sequences import Sequences
from datamodules.splits import Split

__all__ = ["Prompts", "Rows", "ScoreRows", "Sequences", "Split"]
