"""Interface of a source of questions."""

from abc import ABC, abstractmethod
from typing import Any

from extract.tasks.sources.records import LoadedRecords


class Source(ABC):
    """Source of questions with known evidence: subclass it to load records of another format."""

    @abstractmethod
    def load(self) -> LoadedRecords:
        """All records, in a fixed order.

        Raises:
            UserError: the source is missing, or a record is malformed; the message says which.

        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What determines the records, for the store's manifest: settings, and hashes of files."""
