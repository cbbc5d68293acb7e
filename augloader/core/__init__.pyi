from augloader.core.batch import Draw as Draw
from augloader.core.batch import Sample as Sample
from augloader.core.evidence import Certificate as Certificate
from augloader.core.evidence import Evidence as Evidence
from augloader.core.evidence import Selection as Selection
from augloader.core.proxies import LastLayerGradient as LastLayerGradient
from augloader.core.proxies import LayerGradient as LayerGradient
from augloader.core.proxies import Proxies as Proxies
from augloader.core.proxies import Residual as Residual
from augloader.core.proxies import residual as residual
from augloader.core.schedule import Cosine as Cosine
from augloader.core.schedule import Course as Course
from augloader.core.schedule import Every as Every
from augloader.core.schedule import Linear as Linear
from augloader.core.schedule import Product as Product
from augloader.core.schedule import Schedule as Schedule
from augloader.core.schedule import SwitchOff as SwitchOff
from augloader.core.schedule import WarmUp as WarmUp

__all__ = [
    "Certificate",
    "Cosine",
    "Course",
    "Draw",
    "Every",
    "Evidence",
    "LastLayerGradient",
    "LayerGradient",
    "Linear",
    "Product",
    "Proxies",
    "Residual",
    "Sample",
    "Schedule",
    "Selection",
    "SwitchOff",
    "WarmUp",
    "residual",
]
