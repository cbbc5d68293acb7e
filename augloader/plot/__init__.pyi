from augloader.plot.choices import coverage as coverage
from augloader.plot.choices import medoids as medoids
from augloader.plot.choices import turnover as turnover
from augloader.plot.ladders import strength_ladder as strength_ladder
from augloader.plot.ladders import strengths as strengths

__all__ = [
    "coverage",
    "medoids",
    "strength_ladder",
    "strengths",
    "turnover",
]
