from .batches import AblationEffects as AblationEffects
from .batches import EffectBatch as EffectBatch
from .choice import AttributionChoice as AttributionChoice
from .effects import AnswerEffects as AnswerEffects
from .effects import EffectStore as EffectStore
from .extraction import EffectExtraction as EffectExtraction
from .weights import DynamicHeadWeights as DynamicHeadWeights
from .weights import HeadWeights as HeadWeights
