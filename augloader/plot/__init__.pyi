from augloader.plot.choices import coverage as coverage
from augloader.plot.choices import medoids as medoids
from augloader.plot.choices import turnover as turnover
from augloader.plot.diagnostics import alignment as alignment
from augloader.plot.diagnostics import features as features
from augloader.plot.diagnostics import jacobian as jacobian
from augloader.plot.diagnostics import overlap as overlap
from augloader.plot.diagnostics import risks as risks
from augloader.plot.epochs import evolution as evolution
from augloader.plot.ladders import strength_ladder as strength_ladder
from augloader.plot.ladders import strengths as strengths
from augloader.plot.values import drift as drift
from augloader.plot.values import extremes as extremes
from augloader.plot.values import scores as scores

__all__ = [
    "alignment",
    "coverage",
    "drift",
    "evolution",
    "extremes",
    "features",
    "jacobian",
    "medoids",
    "overlap",
    "risks",
    "scores",
    "strength_ladder",
    "strengths",
    "turnover",
]
