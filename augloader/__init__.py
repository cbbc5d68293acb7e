"""Augment a small, well-chosen part of the data, as well as all of it.

augloader decides, for every sample and epoch, which samples are strongly augmented, how many
copies are appended, with what weight and how strong. Model, loss, optimizer and loop stay yours.
"""

from augloader.dataset import WeightedAugmentedDataset
from augloader.engines import facility_location
from augloader.medoids import Medoids, greedy_medoids
from augloader.neighbors import nearest
from augloader.proxies import LastLayerGradient, Proxies, Residual, residual
from augloader.sampler import CoresetSampler, DistributedCoresetSampler
from augloader.schedule import Every
from augloader.strategies import FacilityLocation, MaxLoss, Strategy, Uniform
from augloader.strength import (
    Confidence,
    Constant,
    Entropy,
    LossRank,
    StableInfluence,
    StrengthRule,
)
from augloader.sweeping import sweep
from augloader.table import SampleTable
from augloader.transform import AdaptiveStrengthTransform
from augloader.types import Certificate, Draw, Evidence, Sample, Selection

__all__ = [
    "AdaptiveStrengthTransform",
    "Certificate",
    "Confidence",
    "Constant",
    "CoresetSampler",
    "DistributedCoresetSampler",
    "Draw",
    "Entropy",
    "Every",
    "Evidence",
    "FacilityLocation",
    "LastLayerGradient",
    "LossRank",
    "MaxLoss",
    "Medoids",
    "Proxies",
    "Residual",
    "Sample",
    "SampleTable",
    "Selection",
    "StableInfluence",
    "Strategy",
    "StrengthRule",
    "Uniform",
    "WeightedAugmentedDataset",
    "facility_location",
    "greedy_medoids",
    "nearest",
    "residual",
    "sweep",
]
