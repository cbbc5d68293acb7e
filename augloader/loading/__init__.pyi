from augloader.loading.bases import Base as Base
from augloader.loading.batches import collate as collate
from augloader.loading.cache import Cache as Cache
from augloader.loading.dataset import WeightedAugmentedDataset as WeightedAugmentedDataset
from augloader.loading.distributed_sampler import (
    DistributedCoresetSampler as DistributedCoresetSampler,
)
from augloader.loading.head_influence import HeadInfluence as HeadInfluence
from augloader.loading.plan import Weighting as Weighting
from augloader.loading.sampler import CoresetSampler as CoresetSampler
from augloader.loading.sweeping import gradient_norms as gradient_norms
from augloader.loading.sweeping import sweep as sweep
from augloader.loading.wrapping import wrap as wrap

__all__ = [
    "Base",
    "Cache",
    "CoresetSampler",
    "DistributedCoresetSampler",
    "HeadInfluence",
    "WeightedAugmentedDataset",
    "Weighting",
    "collate",
    "gradient_norms",
    "sweep",
    "wrap",
]
