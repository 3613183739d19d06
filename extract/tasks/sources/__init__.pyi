from .base import Loaded as Loaded
from .base import Passage as Passage
from .base import Record as Record
from .base import Source as Source
