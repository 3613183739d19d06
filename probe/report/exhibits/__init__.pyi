from .rag import questions_of as questions_of
from .registry import EXHIBITS as EXHIBITS
from .registry import Exhibit as Exhibit
from .registry import Shown as Shown
from .registry import shown as shown
