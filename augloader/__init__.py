"""Augment a small, well-chosen part of the data, as well as all of it.

augloader decides, for every sample and epoch, which samples are strongly augmented, how many
copies are appended, with what weight and how strong. Model, loss, optimizer and loop stay yours.
"""

from augloader.dataset import WeightedAugmentedDataset, collate
from augloader.engines import facility_location
from augloader.grids import crops, rotations, translations
from augloader.hardest import HardestOf
from augloader.influence import influence
from augloader.medoids import Medoids, greedy_medoids
from augloader.mixing import CutMix, ManifoldMixup, Mixing, Mixup
from augloader.neighbors import nearest
from augloader.proxies import LastLayerGradient, Proxies, Residual, residual
from augloader.sampler import CoresetSampler, DistributedCoresetSampler
from augloader.schedule import Cosine, Every, Linear, SwitchOff, WarmUp
from augloader.scores import EL2N, Forgetting, Given, GraNd, Influence, Loss, Margin, Score
from augloader.strategies import FacilityLocation, Strategy
from augloader.strength import (
    Confidence,
    Constant,
    Entropy,
    LossRank,
    StableInfluence,
    StrengthRule,
)
from augloader.subsampling import (
    KDPP,
    Clusters,
    Proportional,
    Rank,
    Softmax,
    SupportVectors,
    Uniform,
)
from augloader.sweeping import gradient_norms, sweep
from augloader.table import SampleTable
from augloader.transform import AdaptiveStrengthTransform
from augloader.types import Certificate, Draw, Evidence, Sample, Selection
from augloader.wrapping import wrap

__all__ = [
    "EL2N",
    "KDPP",
    "AdaptiveStrengthTransform",
    "Certificate",
    "Clusters",
    "Confidence",
    "Constant",
    "CoresetSampler",
    "Cosine",
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
    "LastLayerGradient",
    "Linear",
    "Loss",
    "LossRank",
    "ManifoldMixup",
    "Margin",
    "Medoids",
    "Mixing",
    "Mixup",
    "Proportional",
    "Proxies",
    "Rank",
    "Residual",
    "Sample",
    "SampleTable",
    "Score",
    "Selection",
    "Softmax",
    "StableInfluence",
    "Strategy",
    "StrengthRule",
    "SupportVectors",
    "SwitchOff",
    "Uniform",
    "WarmUp",
    "WeightedAugmentedDataset",
    "collate",
    "crops",
    "facility_location",
    "gradient_norms",
    "greedy_medoids",
    "influence",
    "nearest",
    "residual",
    "rotations",
    "sweep",
    "translations",
    "wrap",
]
