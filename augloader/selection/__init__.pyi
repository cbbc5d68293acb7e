from augloader.selection.budget import Allocation as Allocation
from augloader.selection.budget import allocate as allocate
from augloader.selection.clusters import Clusters as Clusters
from augloader.selection.clusters import kmeans as kmeans
from augloader.selection.density import LocalDensity as LocalDensity
from augloader.selection.density import neighbor_distances as neighbor_distances
from augloader.selection.facility import Coreset as Coreset
from augloader.selection.facility import FacilityLocation as FacilityLocation
from augloader.selection.greedy.dense import greedy_medoids as greedy_medoids
from augloader.selection.greedy.engine import Engine as Engine
from augloader.selection.greedy.engine import facility_location as facility_location
from augloader.selection.greedy.medoids import Medoids as Medoids
from augloader.selection.greedy.neighbors import nearest as nearest
from augloader.selection.kdpp import KDPP as KDPP
from augloader.selection.leave_one_out import influence as influence
from augloader.selection.pruning import InfoBatch as InfoBatch
from augloader.selection.pruning import Pruning as Pruning
from augloader.selection.pruning import RandomPruning as RandomPruning
from augloader.selection.scored import Groups as Groups
from augloader.selection.scored import OrderedStrategy as OrderedStrategy
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
from augloader.selection.scores import Score as Score
from augloader.selection.seta import SeTa as SeTa
from augloader.selection.strategy import Strategy as Strategy
from augloader.selection.svm import Margin as Margin
from augloader.selection.svm import SupportVectors as SupportVectors
from augloader.selection.svm import margins as margins

__all__ = [
    "EL2N",
    "KDPP",
    "Allocation",
    "Clusters",
    "Coreset",
    "Engine",
    "FacilityLocation",
    "Forgetting",
    "Given",
    "GraNd",
    "Groups",
    "Influence",
    "InfoBatch",
    "LocalDensity",
    "Loss",
    "Margin",
    "Medoids",
    "OrderedStrategy",
    "Product",
    "Proportional",
    "Pruning",
    "RandomPruning",
    "Rank",
    "Score",
    "SeTa",
    "Softmax",
    "Strategy",
    "SupportVectors",
    "Uniform",
    "allocate",
    "facility_location",
    "greedy_medoids",
    "influence",
    "kmeans",
    "margins",
    "nearest",
    "neighbor_distances",
]
