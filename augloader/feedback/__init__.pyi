from augloader.feedback.learners import Learner as Learner
from augloader.feedback.learners import View as View
from augloader.feedback.sada import Form as Form
from augloader.feedback.sada import Scaling as Scaling
from augloader.feedback.sada import StableInfluence as StableInfluence
from augloader.feedback.strength import Confidence as Confidence
from augloader.feedback.strength import Constant as Constant
from augloader.feedback.strength import Entropy as Entropy
from augloader.feedback.strength import LossRank as LossRank
from augloader.feedback.strength import StrengthRule as StrengthRule
from augloader.feedback.table import SampleTable as SampleTable

__all__ = [
    "Confidence",
    "Constant",
    "Entropy",
    "Form",
    "Learner",
    "LossRank",
    "SampleTable",
    "Scaling",
    "StableInfluence",
    "StrengthRule",
    "View",
]
