from augloader import augment as augment
from augloader import core as core
from augloader import costs as costs
from augloader import diagnostics as diagnostics
from augloader import distributed as distributed
from augloader import feedback as feedback
from augloader import integrations as integrations
from augloader import loading as loading
from augloader import plot as plot
from augloader import selection as selection
from augloader import summary as summary
from augloader.augment.hardest import HardestOf as HardestOf
from augloader.augment.manifold import ManifoldMixup as ManifoldMixup
from augloader.augment.mixing import CutMix as CutMix
from augloader.augment.mixing import Mixup as Mixup
from augloader.augment.policies import PolicyName as PolicyName
from augloader.augment.transform import AdaptiveStrengthTransform as AdaptiveStrengthTransform
from augloader.core.batch import Draw as Draw
from augloader.core.batch import Sample as Sample
from augloader.core.evidence import Evidence as Evidence
from augloader.core.evidence import Selection as Selection
from augloader.core.proxies import LastLayerGradient as LastLayerGradient
from augloader.core.proxies import LayerGradient as LayerGradient
from augloader.core.proxies import Proxies as Proxies
from augloader.core.proxies import Residual as Residual
from augloader.core.schedule import Cosine as Cosine
from augloader.core.schedule import Every as Every
from augloader.core.schedule import Linear as Linear
from augloader.core.schedule import Schedule as Schedule
from augloader.core.schedule import SwitchOff as SwitchOff
from augloader.core.schedule import WarmUp as WarmUp
from augloader.costs import Cost as Cost
from augloader.costs import cost as cost
from augloader.feedback.sada import StableInfluence as StableInfluence
from augloader.feedback.strength import Confidence as Confidence
from augloader.feedback.strength import Constant as Constant
from augloader.feedback.strength import Entropy as Entropy
from augloader.feedback.strength import LossRank as LossRank
from augloader.loading.bases import Base as Base
from augloader.loading.batches import collate as collate
from augloader.loading.dataset import WeightedAugmentedDataset as WeightedAugmentedDataset
from augloader.loading.distributed_sampler import (
    DistributedCoresetSampler as DistributedCoresetSampler,
)
from augloader.loading.plan import Weighting as Weighting
from augloader.loading.sampler import CoresetSampler as CoresetSampler
from augloader.loading.sweeping import sweep as sweep
from augloader.loading.wrapping import wrap as wrap
from augloader.selection.clusters import Clusters as Clusters
from augloader.selection.density import LocalDensity as LocalDensity
from augloader.selection.facility import FacilityLocation as FacilityLocation
from augloader.selection.kdpp import KDPP as KDPP
from augloader.selection.pruning import InfoBatch as InfoBatch
from augloader.selection.pruning import RandomPruning as RandomPruning
from augloader.selection.scored import Proportional as Proportional
from augloader.selection.scored import Rank as Rank
from augloader.selection.scored import Softmax as Softmax
from augloader.selection.scored import Uniform as Uniform
from augloader.selection.scores import EL2N as EL2N
from augloader.selection.scores import Forgetting as Forgetting
from augloader.selection.scores import Given as Given
from augloader.selection.scores import GraNd as GraNd
from augloader.selection.scores import Influence as Influence
from augloader.selection.scores import Loss as Loss
from augloader.selection.scores import Product as Product
from augloader.selection.seta import SeTa as SeTa
from augloader.selection.strategy import Strategy as Strategy
from augloader.selection.svm import Margin as Margin
from augloader.selection.svm import SupportVectors as SupportVectors

__version__: str
__all__ = [
    "EL2N",
    "KDPP",
    "AdaptiveStrengthTransform",
    "Base",
    "Clusters",
    "Confidence",
    "Constant",
    "CoresetSampler",
    "Cosine",
    "Cost",
    "CutMix",
    "DistributedCoresetSampler",
    "Draw",
    "Entropy",
    "Every",
    "Evidence",
    "FacilityLocation",
    "Forgetting",
    "Given",
    "GraNd",
    "HardestOf",
    "Influence",
    "InfoBatch",
    "LastLayerGradient",
    "LayerGradient",
    "Linear",
    "LocalDensity",
    "Loss",
    "LossRank",
    "ManifoldMixup",
    "Margin",
    "Mixup",
    "PolicyName",
    "Product",
    "Proportional",
    "Proxies",
    "RandomPruning",
    "Rank",
    "Residual",
    "Sample",
    "Schedule",
    "SeTa",
    "Selection",
    "Softmax",
    "StableInfluence",
    "Strategy",
    "SupportVectors",
    "SwitchOff",
    "Uniform",
    "WarmUp",
    "WeightedAugmentedDataset",
    "Weighting",
    "collate",
    "cost",
    "sweep",
    "wrap",
]
