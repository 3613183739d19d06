from .overlap import ranking_overlap as ranking_overlap
from .ranking import Ranking as Ranking
from .ranking_files import read_ranking as read_ranking
from .ranking_files import write_ranking as write_ranking
from .static_heads import HeadMeans as HeadMeans
from .static_heads import StoreHeads as StoreHeads
from .static_heads import read_store_heads as read_store_heads
from .static_heads import store_ranking as store_ranking
