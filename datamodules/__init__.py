"""LightningDataModules: prompts for the frozen model, score rows for probes, whole samples for figures over steps."""

from datamodules.offsets import OffsetRows
from datamodules.prompts import Prompts
from datamodules.resampled import ResampledSequences
from datamodules.rows import Rows, ScoreRows
from datamodules.sequences import Sequences
from datamodules.splits import Split

__all__ = ["OffsetRows", "Prompts", "ResampledSequences", "Rows", "ScoreRows", "Sequences", "Split"]
