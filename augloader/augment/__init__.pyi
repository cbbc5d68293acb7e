from augloader.augment.blend import Mixing as Mixing
from augloader.augment.grids import crops as crops
from augloader.augment.grids import rotations as rotations
from augloader.augment.grids import translations as translations
from augloader.augment.hardest import HardestOf as HardestOf
from augloader.augment.manifold import ManifoldMixup as ManifoldMixup
from augloader.augment.mixing import CutMix as CutMix
from augloader.augment.mixing import Mixup as Mixup
from augloader.augment.policies import Params as Params
from augloader.augment.policies import PolicyName as PolicyName
from augloader.augment.targets import follow as follow
from augloader.augment.transform import AdaptiveStrengthTransform as AdaptiveStrengthTransform

__all__ = [
    "AdaptiveStrengthTransform",
    "CutMix",
    "HardestOf",
    "ManifoldMixup",
    "Mixing",
    "Mixup",
    "Params",
    "PolicyName",
    "crops",
    "follow",
    "rotations",
    "translations",
]
