"""The vocabulary of the policies: the operations, their numbers and what a magnitude means.

A chain is a row of K operations ``op`` (int64) with one ``magnitude`` (float32) each. Magnitudes
are those of torchvision's auto-augmentation kernels:

    ShearX, ShearY              tangent of the angle, about the top left corner
    TranslateX, TranslateY      whole pixels
    Rotate                      degrees, counter-clockwise
    Flip                        left to right, unless it is 0
    Brightness, Contrast, Color, Sharpness
                                offset from the neutral factor 1
    Posterize                   bits that are kept
    Solarize                    threshold as a share of white; above 1 no pixel reaches it
    AutoContrast, Equalize, Invert, Identity
                                none: ignored
"""

from __future__ import annotations

OPS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Contrast",
    "AutoContrast",
    "Solarize",
    "Invert",
    "Posterize",
    "Equalize",
    "Color",
    "Sharpness",
    "Flip",
)
(
    IDENTITY,
    SHEAR_X,
    SHEAR_Y,
    TRANSLATE_X,
    TRANSLATE_Y,
    ROTATE,
    BRIGHTNESS,
    CONTRAST,
    AUTO_CONTRAST,
    SOLARIZE,
    INVERT,
    POSTERIZE,
    EQUALIZE,
    COLOR,
    SHARPNESS,
    FLIP,
) = range(len(OPS))
GEOMETRY = range(SHEAR_X, ROTATE + 1)  # and FLIP, whose number came later
COLOUR = range(BRIGHTNESS, SHARPNESS + 1)
# Where the magnitude may go either way from neutral.
SIGNED = (*GEOMETRY, BRIGHTNESS, CONTRAST, COLOR, SHARPNESS)
# Without a magnitude: applied with probability equal to the strength.
GATED = (AUTO_CONTRAST, INVERT, EQUALIZE, FLIP)
# The magnitude that changes nothing; 0 where none is named.
NEUTRAL = {POSTERIZE: 8.0, SOLARIZE: 256 / 255}
