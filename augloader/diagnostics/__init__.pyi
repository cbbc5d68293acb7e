from augloader.diagnostics.alignments import Alignment as Alignment
from augloader.diagnostics.alignments import alignment as alignment
from augloader.diagnostics.features import FeatureSpectrum as FeatureSpectrum
from augloader.diagnostics.features import feature_spectrum as feature_spectrum
from augloader.diagnostics.jacobian import JacobianSpectrum as JacobianSpectrum
from augloader.diagnostics.jacobian import jacobian_spectrum as jacobian_spectrum
from augloader.diagnostics.overlaps import Overlap as Overlap
from augloader.diagnostics.overlaps import overlap as overlap
from augloader.diagnostics.risks import Risk as Risk
from augloader.diagnostics.risks import RiskGap as RiskGap
from augloader.diagnostics.risks import risk_gap as risk_gap

__all__ = [
    "Alignment",
    "FeatureSpectrum",
    "JacobianSpectrum",
    "Overlap",
    "Risk",
    "RiskGap",
    "alignment",
    "feature_spectrum",
    "jacobian_spectrum",
    "overlap",
    "risk_gap",
]
