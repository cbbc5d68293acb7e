"""Augment a small, well-chosen part of the data, as well as all of it.

augloader decides, for every sample and epoch, which samples are strongly augmented, how many
copies are appended, with what weight and how strong. Model, loss, optimizer and loop stay yours.
"""

from augloader.core.lazy import lazily

__version__ = "0.2.0"
_FORMER = {  # names of version 0.1, until 0.3
    "Certificate": "augloader.core",
    "Medoids": "augloader.selection",
    "Mixing": "augloader.augment",
    "SampleTable": "augloader.feedback",
    "Score": "augloader.selection",
    "StrengthRule": "augloader.feedback",
    "crops": "augloader.augment",
    "facility_location": "augloader.selection",
    "gradient_norms": "augloader.loading",
    "greedy_medoids": "augloader.selection",
    "influence": "augloader.selection",
    "nearest": "augloader.selection",
    "residual": "augloader.core",
    "rotations": "augloader.augment",
    "translations": "augloader.augment",
}

__getattr__, __dir__, __all__ = lazily(__name__, __file__, _FORMER)
